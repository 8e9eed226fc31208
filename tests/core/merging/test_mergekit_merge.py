"""The general path gives what mergekit gives for the recipe's own configuration, and draws from the recipe's seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core.contracts.merge_methods import METHODS, mergekit_methods
from core.contracts.method_checks import refuse_pool
from core.errors import MergeError
from core.merging import mergekit_merge as registered
from core.merging.engine import MergePool
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe
from core.search.genome import Genome
from tests.core.merging.small_pools import SHAPES, Small, State, by_mergekit, fine_tune, state_of

METHODS_USED = [name for name in mergekit_methods() if name != "passthrough"]
EXACT = 2.0**-21


def genome_of(method: str, experts: int = 0, seed: int = 0, **fixed: Any) -> Genome:
    count = experts or (1 if METHODS[method].most == 2 else 2)
    return Genome(method, "base", ("a", "b", "c")[:count], seed=seed, fixed_parameters=tuple(sorted(fixed.items())))


def shapes_of(method: str) -> dict[str, tuple[int, ...]]:
    """DELLA has no answer for rows of one entry."""
    return {name: shape for name, shape in SHAPES.items() if not (method.startswith("della") and name == "single")}


def states_of(genome: Genome) -> dict[str, State]:
    """The base and fine-tunes of it."""
    base = state_of(Small(0, shapes=shapes_of(genome.method)))
    return {"base": base, **{name: fine_tune(base, i) for i, name in enumerate(genome.experts, start=1)}}


def pool_from(states: dict[str, State], dtype: torch.dtype = torch.float32) -> MergePool:
    base = states["base"]
    pool = MergePool(Small(0, dtype, {name: tuple(tensor.shape) for name, tensor in base.items()}), "base", base)
    for name, state in states.items():
        if name != "base":
            pool.add_expert(name, state)
    return pool


POOLS = [
    (name, count)
    for name in METHODS_USED
    for count in (1, 2, 3)
    if not METHODS[name].random and not refuse_pool(name, count, outside_ancestor=False)
]


@pytest.mark.parametrize("units", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("method", "experts"), [*POOLS, ("arcee_fusion", 1)])
def test_a_merge_equals_mergekits(method: str, experts: int, units: float) -> None:
    genome = genome_of(method, experts)
    recipe = genome.recipe([units] * len(genome.searched))
    states = states_of(genome)
    pool = pool_from(states)
    pool.apply(recipe)
    if method == "multislerp" and experts == 3:
        for state in states.values():  # mergekit has no answer where all models agree; the pool keeps the base
            del state["same"]
    for name, expected in by_mergekit(recipe, states).items():
        size = max(float(state[name].abs().max()) for state in states.values())
        assert torch.allclose(pool.live.state_dict()[name], expected, rtol=0, atol=EXACT * size), name
    assert torch.equal(pool.live.same, states["base"].get("same", pool.live.same))


def test_what_mergekit_calculates_is_not_the_base_nor_a_parent() -> None:
    """Else the comparison would hold for a path that merges nothing."""
    for method in METHODS_USED:
        genome = genome_of(method)
        states = states_of(genome)
        pool = pool_from(states)
        pool.apply(genome.recipe([0.5] * len(genome.searched)))
        for state in states.values():
            assert not torch.equal(pool.live.matrix, state["matrix"]), method


@pytest.mark.parametrize("method", ["della", "della_linear", "dare_linear", "dare_ties"])
def test_random_numbers_depend_on_seed_and_tensor_alone(method: str) -> None:
    def merged(seed: int, rng: int) -> tuple[Tensor, Tensor]:
        fixed = (("normalize", True),) if method.startswith("dare") else ()
        recipe = Recipe(
            method=method,
            base="base",
            experts=("a",),
            weights=(1.0,),
            densities=(0.5,),
            seed=seed,
            parameters=fixed or (("epsilon", 0.1),),
        )
        assert recipe.by_mergekit
        base = state_of(Small(0, shapes=shapes_of(method)))
        pool = pool_from({"base": base, "a": fine_tune(base, 1)})
        torch.manual_seed(rng)
        before = torch.get_rng_state()
        pool.apply(recipe)
        assert torch.equal(torch.get_rng_state(), before)
        return pool.live.matrix.clone(), pool.live.vector.clone()

    first, other_state, other_seed = merged(1, 0), merged(1, 5), merged(2, 0)
    assert torch.equal(first[0], other_state[0])
    assert torch.equal(first[1], other_state[1])
    assert not torch.equal(first[0], other_seed[0])


def test_arcee_fusions_samples_of_large_tensors_follow_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    from mergekit.merge_methods import arcee_fusion

    monkeypatch.setattr(arcee_fusion, "_QUANTILE_SAMPLE_SIZE", 20)
    merges = []
    for seed in (1, 1, 2):
        genome = genome_of("arcee_fusion", seed=seed)
        pool = pool_from(states_of(genome))
        pool.apply(genome.recipe([]))
        merges.append(pool.live.matrix.clone())
    assert torch.equal(merges[0], merges[1])
    assert not torch.equal(merges[0], merges[2])


@pytest.mark.parametrize("method", ["dare_ties", "dare_linear"])
def test_dares_own_norms_are_mergekits(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same random numbers, normalizing and rescaling are what `merge_state_dicts` makes of the recipe."""
    from mergekit.merge_methods import merge_state_dicts

    states = {"base": state_of(Small(0)), "a": fine_tune(state_of(Small(0)), 1), "b": fine_tune(state_of(Small(0)), 2)}
    recipe = Recipe(
        method=method,
        base="base",
        experts=("a", "b"),
        weights=(0.5, 1.0),
        densities=(0.4, 0.6),
        seed=3,
        parameters={"normalize": True, "rescale": True, "lambda": 0.8},
    )
    pool = pool_from(states)
    pool.apply(recipe)
    for name in ("matrix", "vector", "single"):
        with registered._seeded(recipe, name, torch.device("cpu")):
            expected = merge_state_dicts(
                {model: {name: state[name]} for model, state in states.items()},
                method,
                parameters={"weight": [0.5, 1.0], "density": [0.4, 0.6], "normalize": True, "lambda": 0.8},
                base="base",
            )[name]
        assert torch.allclose(pool.live.state_dict()[name], expected, rtol=0, atol=4 * EXACT), name


@pytest.mark.parametrize("method", METHODS_USED)
def test_tensors_in_which_all_agree_stay_and_the_live_model_has_its_own_precision(method: str) -> None:
    genome = genome_of(method)
    states = states_of(genome)
    exact, rounded = pool_from(states), pool_from(states, torch.bfloat16)
    recipe = genome.recipe([0.5] * len(genome.searched))
    for pool in (exact, rounded):
        pool.apply(recipe)
    assert torch.equal(exact.live.same, states["base"]["same"])
    assert torch.equal(rounded.live.matrix, exact.live.matrix.bfloat16())


def test_an_expert_that_shares_a_tensor_with_the_base_has_the_bases() -> None:
    genome = genome_of("model_stock")
    states = states_of(genome)
    states["a"]["vector"] = states["base"]["vector"].clone()
    pool = pool_from(states)
    pool.apply(genome.recipe([]))
    expected = by_mergekit(genome.recipe([]), states)["vector"]
    assert torch.allclose(pool.live.vector, expected, rtol=0, atol=2 * EXACT)


def test_weights_that_cancel_are_an_error_of_the_candidate() -> None:
    base = {name: torch.zeros_like(tensor) for name, tensor in state_of(Small(0)).items()}
    up, down = ({name: tensor + step for name, tensor in base.items()} for step in (1.0, -1.0))
    up["matrix"], down["matrix"] = up["matrix"] * 2, down["matrix"] * 2
    other = {name: tensor.clone() for name, tensor in base.items()}
    pool = MergePool(Small(0), "base", base)
    for name, state in (("a", up), ("b", down), ("c", other)):
        pool.add_expert(name, state)
    recipe = Recipe(method="multislerp", base="base", experts=("a", "b", "c"), weights=(1.0, 1.0, 1.0))
    with pytest.raises(MergeError) as caught:
        pool.apply(recipe)
    assert caught.value.code == "mergekit-refused"


def test_a_merge_that_is_not_finite_is_an_error_of_the_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    genome = genome_of("karcher")
    states = states_of(genome)
    huge = {name: torch.full_like(tensor, 3e38) for name, tensor in states["base"].items()}
    pool = pool_from({**states, "b": huge})
    with pytest.raises(MergeError) as caught:
        pool.apply(genome.recipe([]))
    assert caught.value.code == "merge-not-finite"


def test_della_says_which_tensor_it_cannot_rank() -> None:
    genome = genome_of("della")
    base = state_of(Small(0))
    pool = pool_from({"base": base, "a": fine_tune(base, 1), "b": fine_tune(base, 2)})
    with pytest.raises(MergeError) as caught:
        pool.apply(genome.recipe([0.5] * len(genome.searched)))
    assert caught.value.code == "rows-of-one"
    assert "single" in caught.value.message


def test_the_parameters_of_a_recipe_reach_mergekit_by_name() -> None:
    genome = genome_of("breadcrumbs_ties", **{"gamma": 0.05})
    recipe = genome.recipe([0.5] * len(genome.searched))
    config = to_mergekit(recipe)
    assert [model.parameters for model in config.models] == [{"weight": 0.75, "density": 0.525}] * 2
    assert config.parameters == {"gamma": 0.05}
    assert str(config.base_model) == "base"
    two = genome_of("nuslerp", 1)
    config = to_mergekit(two.recipe([0.25, 0.75]))
    assert config.base_model is None
    assert [(str(model.model), model.parameters) for model in config.models] == [
        ("base", {"weight": 0.25}),
        ("a", {"weight": 0.75}),
    ]
