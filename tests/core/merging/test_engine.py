"""The fast path gives mergekit's own result, is repeatable, and writes into the live model in place.

Tolerance against mergekit: none for TIES and task arithmetic, which do the same float32 operations in the same order;
for linear a few float32 roundings of the terms' sizes, as mergekit adds weighted models where we add weighted task
vectors to the base. Of several magnitudes equal to the trim threshold mergekit keeps those its sort happens to put
first, we keep the first by place: here magnitudes within a tensor differ.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mergekit.merge_methods import merge_state_dicts
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from core.errors import MergeError
from core.merging import engine
from core.merging.engine import MergePool
from core.merging.fingerprint import sha256_of_model
from core.merging.recipes import Recipe, equal_weights
from core.models.loading import untied_state

State = dict[str, Tensor]
EPSILON = 2.0**-24
EXPERTS = ("a", "b", "c")


class Small(nn.Module):
    """Parameters of several shapes; `same` is equal in all models of the pool."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, shape in {"matrix": (12, 19), "vector": (17,), "single": (1,), "same": (5,)}.items():
            values = torch.randint(-999, 999, shape, generator=generator) / 512
            self.register_parameter(name, nn.Parameter(values.to(dtype), requires_grad=False))


def state_of(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def fine_tune(base: State, seed: int) -> State:
    """The base plus a difference whose magnitudes are all distinct, and exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in base.items():
        magnitudes = torch.randperm(tensor.numel(), generator=generator) + 1
        signs = torch.randint(0, 2, magnitudes.shape, generator=generator) * 2 - 1
        state[name] = tensor if name == "same" else tensor + (magnitudes * signs / 4096).reshape(tensor.shape)
    return state


def pool_of(experts: dict[str, State], dtype: torch.dtype = torch.float32, seed: int = 0) -> MergePool:
    pool = MergePool(Small(seed, dtype), "base", state_of(Small(seed)))
    for name, state in experts.items():
        pool.add_expert(name, state)
    return pool


def by_mergekit(recipe: Recipe, states: dict[str, State]) -> State:
    """mergekit's result for the recipe's own mergekit configuration."""
    config = recipe.to_mergekit(out_dtype="float32")
    per_model: dict[str, dict[str, float]] = {}
    for model in config.models:
        for name, value in model.parameters.items():
            per_model.setdefault(name, {})[str(model.model)] = value
    return merge_state_dicts(
        {name: states[name] for name in (recipe.base, *recipe.experts)},
        config.merge_method,
        parameters=per_model | dict(config.parameters),
        base=str(config.base_model) if config.base_model else None,
        dtype=torch.float32,
    )


def tolerance(recipe: Recipe, states: dict[str, State], name: str) -> float:
    if recipe.method != "linear":
        return 0.0
    sizes = [float(states[model][name].abs().max()) for model in (recipe.base, *recipe.experts)]
    return 4 * len(sizes) * EPSILON * (sum(sizes) + sizes[0] * len(sizes))


weight = st.one_of(st.floats(0.0, 3.0), st.sampled_from([0.0, 1.0, 1.5]))
density = st.one_of(st.floats(0.001, 1.0), st.sampled_from([1e-6, 0.05, 0.5, 1.0]))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    method = draw(st.sampled_from(["ties", "task_arithmetic", "linear"]))
    experts = EXPERTS[: draw(st.sampled_from([1, 2, 3]))]
    count = len(experts) + (method == "linear")
    weights = draw(
        st.lists(weight, min_size=count, max_size=count).filter(lambda w: method != "linear" or sum(w) > 0.1)
    )
    densities = draw(st.lists(density, min_size=count, max_size=count)) if method == "ties" else None
    return Recipe(method=method, base="base", experts=experts, weights=tuple(weights), densities=densities)


@settings(
    derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(recipe=recipes(), seed=st.integers(0, 1000), piece=st.sampled_from([5, 64, 1 << 19]))
def test_a_merge_equals_mergekits(recipe: Recipe, seed: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_PIECE", piece)
    base = state_of(Small(seed))
    states = {"base": base} | {name: fine_tune(base, seed + i) for i, name in enumerate(recipe.experts, start=1)}
    pool = pool_of({name: states[name] for name in recipe.experts}, seed=seed)
    pool.apply(recipe)
    expected = by_mergekit(recipe, states)
    for name, merged in pool.live.state_dict().items():
        assert torch.allclose(merged, expected[name], rtol=0, atol=tolerance(recipe, states, name)), name


def test_of_equal_magnitudes_as_many_and_as_large_ones_are_kept_as_by_mergekit() -> None:
    base = state_of(Small(0))
    steps = torch.randint(-4, 5, (12, 19), generator=torch.Generator().manual_seed(3)) / 8
    states = {"base": base, "a": {**base, "matrix": base["matrix"] + steps}}
    recipe = Recipe(method="ties", base="base", experts=("a",), weights=(1.0,), densities=(0.3,))
    pool = pool_of({"a": states["a"]})
    pool.apply(recipe)
    ours = (pool.live.matrix - base["matrix"]).abs().flatten().sort().values
    theirs = (by_mergekit(recipe, states)["matrix"] - base["matrix"]).abs().flatten().sort().values
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "linear"])
def test_a_bfloat16_model_gets_the_rounded_float32_merge(method: str) -> None:
    base = state_of(Small(0))
    experts = {name: fine_tune(base, i) for i, name in enumerate(EXPERTS)}
    recipe = Recipe(
        method=method,
        base="base",
        experts=EXPERTS,
        weights=(0.3,) * (3 + (method == "linear")),
        densities=(0.4, 0.2, 1.0) if method == "ties" else None,
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


def test_a_recipe_gives_the_same_weights_whatever_came_before(llama_pool: MergePool) -> None:
    llama_pool.apply(ties(0.7, 0.3))
    first = sha256_of_model(llama_pool.live)
    for other in (ties(1.5, 1.0), equal_weights("linear", "base", ("a",)), ties(0.7, 0.31)):
        llama_pool.apply(other)
        assert sha256_of_model(llama_pool.live) != first
    llama_pool.write_parent("a")
    llama_pool.apply(ties(0.7, 0.3))
    assert sha256_of_model(llama_pool.live) == first


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
    llama_pool.apply(ties(1.5, 0.5))
    first = norm.clone()
    llama_pool.write_parent("base")
    assert torch.equal(norm, first)
    with torch.no_grad():
        norm.zero_()  # and it is written, not left as it was
    llama_pool.apply(ties(0.2, 0.5))
    assert torch.equal(norm, first)


def test_parents_come_back_bit_for_bit(llama_pool: MergePool, tiny_expert: Path) -> None:
    llama_pool.apply(ties(0.4, 0.4))
    llama_pool.write_parent("a")
    expert = AutoModelForCausalLM.from_pretrained(tiny_expert, dtype=torch.bfloat16)
    assert sha256_of_model(llama_pool.live) == sha256_of_model(expert)


def test_a_model_outside_the_pool_is_refused() -> None:
    pool = pool_of({"a": fine_tune(state_of(Small(0)), 1)})
    with pytest.raises(MergeError, match=r"outside the pool.*'b'"):
        pool.apply(equal_weights("ties", "base", ("a", "b")))
    with pytest.raises(MergeError, match="outside the pool: other"):
        pool.apply(equal_weights("ties", "other", ("a",)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("vector"), "no such tensor"),
        (lambda state: state.update(vector=torch.zeros(3)), r"shape \(3,\), expected \(17,\)"),
        (lambda state: state["matrix"].view(-1)[7:8].fill_(float("nan")), "not finite"),
    ],
)
def test_an_expert_that_does_not_fit_is_refused(change: Callable[[State], object], message: str) -> None:
    state = fine_tune(state_of(Small(0)), 1)
    change(state)
    with pytest.raises(MergeError, match=message):
        pool_of({"a": state})


def test_a_live_model_without_the_bases_tensors_is_refused() -> None:
    with pytest.raises(MergeError, match="lacks 1 tensors of the base, extra"):
        MergePool(Small(0), "base", {**state_of(Small(0)), "extra": torch.zeros(1)})
