"""The fast path writes into the live model in place, is repeatable, and refuses models that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.contracts.merge_methods import METHODS
from core.errors import MergeError
from core.merging.engine import MergePool
from core.merging.recipes import Recipe, equal_weights
from core.models.fingerprint import sha256_of_model
from core.models.loading import untied_state
from core.search.genome import Genome
from tests.core.merging.small_pools import Small, State, fine_tune, pool_of, state_of

EXPERTS = ("a", "b", "c")


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear", "task_arithmetic", "linear"])
def test_a_bfloat16_model_gets_the_rounded_float32_merge(method: str) -> None:
    base = state_of(Small(0))
    experts = {name: fine_tune(base, i) for i, name in enumerate(EXPERTS)}
    recipe = Recipe(
        method=method,
        base="base",
        experts=EXPERTS,
        weights=(0.3,) * (3 + (method == "linear")),
        densities=(0.4, 0.2, 1.0) if METHODS[method].has_densities else None,
    )
    exact, rounded = pool_of(experts), pool_of(experts, torch.bfloat16)
    exact.apply(recipe)
    rounded.apply(recipe)
    for name, tensor in rounded.live.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, exact.live.state_dict()[name].bfloat16())


@pytest.fixture
def llama_pool(tiny_llama: Path, tiny_expert: Path) -> MergePool:
    live = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)
    base, expert = (
        untied_state(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
        for folder in (tiny_llama, tiny_expert)
    )
    base["model.norm.weight"] = expert["model.norm.weight"].clone()
    pool = MergePool(live, "base", base)
    pool.add_expert("a", expert)
    return pool


def ties(weight: float, density: float) -> Recipe:
    return Recipe(method="ties", base="base", experts=("a",), weights=(weight,), densities=(density,))


def slerp(t: float) -> Recipe:
    return Recipe(method="slerp", base="base", experts=("a",), weights=(t,))


def dare(density: float, seed: int = 0) -> Recipe:
    return Recipe(method="dare_ties", base="base", experts=("a",), weights=(0.7,), densities=(density,), seed=seed)


@pytest.mark.parametrize("recipe", [ties(0.7, 0.3), dare(0.3), slerp(0.4)])
def test_a_recipe_gives_the_same_weights_whatever_came_before(recipe: Recipe, llama_pool: MergePool) -> None:
    llama_pool.apply(recipe)
    first = sha256_of_model(llama_pool.live)
    for other in (
        ties(1.5, 1.0),
        equal_weights("linear", "base", ("a",)),
        ties(0.7, 0.31),
        dare(0.31),
        dare(0.3, 1),
        slerp(0.41),
    ):
        llama_pool.apply(other)
        assert sha256_of_model(llama_pool.live) != first
    llama_pool.write_parent("a")
    llama_pool.apply(recipe)
    assert sha256_of_model(llama_pool.live) == first


def test_the_ends_of_slerp_are_the_parents(llama_pool: MergePool) -> None:
    for t, parent in ((0.0, "base"), (1.0, "a")):
        llama_pool.apply(slerp(t))
        merged = sha256_of_model(llama_pool.live)
        llama_pool.write_parent(parent)
        assert sha256_of_model(llama_pool.live) == merged


def test_dare_divides_what_it_keeps_by_the_density() -> None:
    base = {name: torch.zeros_like(tensor) for name, tensor in state_of(Small(0)).items()}
    pool = MergePool(Small(0), "base", base)
    pool.add_expert("a", fine_tune(base, 1))
    pool.write_parent("a")
    expert = pool.live.matrix.clone()
    pool.apply(Recipe(method="dare_linear", base="base", experts=("a",), weights=(0.5,), densities=(0.25,)))
    kept = pool.live.matrix != 0
    assert 0.1 < float(kept.float().mean()) < 0.4
    assert torch.equal(pool.live.matrix, expert * kept * 2.0)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear", "task_arithmetic", "linear", "slerp"])
def test_an_expert_equal_to_the_base_changes_nothing(method: str) -> None:
    base = state_of(Small(0))
    pool = pool_of({"a": base})
    assert pool.changing == frozenset()
    pool.apply(equal_weights(method, "base", ("a",)))
    assert all(torch.equal(tensor, base[name]) for name, tensor in pool.live.state_dict().items())
    pool.write_parent("a")
    assert all(torch.equal(tensor, base[name]) for name, tensor in pool.live.state_dict().items())


def test_merges_are_written_into_the_parameters_that_are_there(llama_pool: MergePool) -> None:
    live = llama_pool.live
    places = {name: parameter.data_ptr() for name, parameter in live.named_parameters()}
    before = live.model.embed_tokens.weight.clone()
    llama_pool.apply(ties(1.0, 1.0))
    assert {name: parameter.data_ptr() for name, parameter in live.named_parameters()} == places
    assert not torch.equal(live.model.embed_tokens.weight, before)
    assert live.lm_head.weight is live.model.embed_tokens.weight
    assert all(not parameter.requires_grad or parameter.is_leaf for parameter in live.parameters())


def test_a_tensor_without_difference_stays_the_bases(llama_pool: MergePool) -> None:
    norm = llama_pool.live.model.norm.weight
    with torch.no_grad():
        norm.zero_()
    llama_pool.apply(ties(1.5, 0.5))
    assert torch.equal(norm, llama_pool.base_tensors["model.norm.weight"].bfloat16())
    written = norm._version
    llama_pool.apply(ties(0.2, 0.5))
    llama_pool.write_parent("base")
    assert norm._version == written  # and is not written again


def test_a_tensor_that_differs_becomes_the_bases_again(llama_pool: MergePool) -> None:
    key = min(llama_pool.changing)
    weight, base = llama_pool.live.state_dict()[key], llama_pool.base_tensors[key].bfloat16()
    for recipe in (ties(0.4, 0.5), ties(0.2, 0.9)):
        llama_pool.apply(recipe)
        assert not torch.equal(weight, base)
        for _ in range(2):
            llama_pool.write_parent("base")
            assert torch.equal(weight, base)


def test_parents_come_back_bit_for_bit(llama_pool: MergePool, tiny_expert: Path) -> None:
    llama_pool.apply(ties(0.4, 0.4))
    llama_pool.write_parent("a")
    expert = AutoModelForCausalLM.from_pretrained(tiny_expert, dtype=torch.bfloat16)
    assert sha256_of_model(llama_pool.live) == sha256_of_model(expert)


def test_a_model_outside_the_pool_is_refused() -> None:
    pool = pool_of({"a": fine_tune(state_of(Small(0)), 1)})
    for recipe in (equal_weights("ties", "base", ("a", "b")), equal_weights("ties", "other", ("a",))):
        with pytest.raises(MergeError) as caught:
            pool.apply(recipe)
        assert caught.value.code == "outside-pool"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda state: state.pop("vector"), "tensors-differ"),
        (lambda state: state.update(vector=torch.zeros(3)), "tensors-differ"),
        (lambda state: state.update(extra=torch.zeros(2)), "tensors-differ"),
        (lambda state: state["matrix"].view(-1)[7:8].fill_(float("nan")), "weights-not-finite"),
    ],
)
def test_an_expert_that_does_not_fit_is_refused(change: Callable[[State], object], code: str) -> None:
    state = fine_tune(state_of(Small(0)), 1)
    change(state)
    with pytest.raises(MergeError) as caught:
        pool_of({"a": state})
    assert caught.value.code == code


def test_a_live_model_without_the_bases_tensors_is_refused() -> None:
    with pytest.raises(MergeError) as caught:
        MergePool(Small(0), "base", {**state_of(Small(0)), "extra": torch.zeros(1)})
    assert caught.value.code == "live-model-lacks-tensors"


def test_a_damaged_base_is_named_itself() -> None:
    base = state_of(Small(0))
    base["vector"][3] = float("inf")
    with pytest.raises(MergeError) as caught:
        MergePool(Small(0), "base", base)
    assert caught.value.code == "weights-not-finite"
    assert "vector of base" in caught.value.message


class Counting(Small):
    """With a saved buffer of whole numbers, and one of floats."""

    def __init__(self, steps: int = 3, scale: float = 1.0) -> None:
        super().__init__(0)
        self.register_buffer("steps", torch.tensor([steps, 2 * steps]))
        self.register_buffer("scale", torch.tensor([scale]))


@pytest.mark.parametrize("method", ["ties", "slerp", "linear", "karcher", "nearswap"])
def test_integer_buffers_are_kept_and_float_buffers_are_merged(method: str) -> None:
    base, expert = state_of(Counting()), state_of(Counting(scale=3.0))
    pool = MergePool(Counting(), "base", base)
    pool.add_expert("a", expert)
    pool.apply(Genome(method, "base", ("a",)).plain())
    assert pool.live.steps.tolist() == [3, 6]
    assert pool.live.steps.dtype == torch.int64
    assert 1.0 <= float(pool.live.scale) <= 3.0
    if method != "nearswap":  # which takes little of what lies far apart
        assert float(pool.live.scale) > 1.5


def test_integer_buffers_that_differ_are_refused_as_by_mergekit() -> None:
    pool = MergePool(Counting(), "base", state_of(Counting()))
    with pytest.raises(MergeError) as caught:
        pool.add_expert("a", state_of(Counting(steps=4)))
    assert caught.value.code == "integers-differ"


def test_experts_that_are_copies_of_the_base_are_known() -> None:
    base = state_of(Small(0))
    pool = pool_of({"a": base, "b": fine_tune(base, 1)})
    assert pool.unchanged == ("a",)
