"""Each published method equals a slow float64 version of its formula on small models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from core.contracts.merge_methods import METHODS, rival_methods
from core.contracts.method_info import Value
from core.merging.engine import MergePool
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe
from core.merging.rivals.importance import ElectionRanks, FisherDiagonal, Importance
from core.merging.rivals.sums import as_sum
from core.merging.storage import Storage
from tests.core.merging.rivals import references
from tests.core.merging.small_pools import Small, State, by_mergekit, state_of

SHAPES = {
    "block0_wide": (6, 11),
    "block0_tall": (13, 5),
    "block1_square": (8, 8),
    "block1_kept": (7, 9),
    "block1_foreign": (5, 6),
    "norm": (17,),
    "same": (4, 4),
}
BY_LAYER = ("safe_lora", "safemerge", "lata")
BY_WEIGHT = tuple(name for name in rival_methods() if METHODS[name].importance)
EXPERTS = ("chemistry", "geography")


def nudged(state: State, seed: int, size: float, skip: tuple[str, ...]) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        key: tensor if key in skip else tensor + size * torch.randn(tensor.shape, generator=generator)
        for key, tensor in state.items()
    }


def models(size: float = 0.05) -> dict[str, State]:
    """An ancestor, the model aligned from it, and experts from that; some layers are equal in two or all of them."""
    ancestor = state_of(Small(0, shapes=SHAPES))
    aligned = nudged(ancestor, 1, 0.1, ("same", "block1_foreign"))
    found = {"ancestor": ancestor, "aligned": aligned}
    for number, name in enumerate(EXPERTS, start=2):
        expert = nudged(aligned, number, size * number, ("same", "block1_kept"))
        drift = references.projected(aligned["block1_square"] - ancestor["block1_square"], torch.eye(8))
        expert["block1_square"] = expert["block1_square"] + 2 * drift  # an update along the alignment
        found[name] = expert
    return found


def pool_from(states: Mapping[str, State], base: str, dtype: torch.dtype = torch.float32, **storage: bool) -> MergePool:
    live = Small(0, dtype, SHAPES)
    pool = MergePool(live, base, states[base], Storage(torch.device("cpu"), **storage))
    for name, state in states.items():
        if name != base and (base == "ancestor" or name != "ancestor"):
            pool.add_expert(name, state)
    return pool


def scores_of(states: Mapping[str, State]) -> dict[tuple[str, str, str], Tensor]:
    """Random scores of each task's tensors in the base and in the model itself; a tenth of them are 0."""
    generator = torch.Generator().manual_seed(8)

    def draw(like: Tensor) -> Tensor:
        values = torch.rand(like.shape, generator=generator)
        return torch.where(torch.rand(like.shape, generator=generator) < 0.1, 0.0, values)

    names = [name for name in ("aligned", *EXPERTS) if name in states]
    return {(name, by, key): draw(states[name][key]) for name in names for by in ("base", "own") for key in SHAPES}


def fisher_of(states: Mapping[str, State]) -> dict[str, Tensor]:
    """A random Fisher diagonal that bfloat16 holds, over several orders of magnitude, with zeros."""
    scores = scores_of(states)
    return {key: (scores["aligned", "own", key] ** 6 * 40).bfloat16().float() for key in SHAPES}


def add_importance(pool: MergePool, states: Mapping[str, State], kind: str | None) -> None:
    importance: Importance = FisherDiagonal(pool.storage) if kind == "fisher" else ElectionRanks(pool.storage)
    if isinstance(importance, FisherDiagonal):
        for key, values in fisher_of(states).items():
            importance.note("aligned", key, values)
    else:
        for (name, _, key), scores in scores_of(states).items():
            if name in pool.experts and key in pool.changed_by(name):
                importance.note(name, key, scores)
    pool.facts.importance = importance


def recipe_of(method: str, experts: int, **parameters: Value) -> Recipe:
    fine_tuned = EXPERTS[:experts]
    if METHODS[method].needs_ancestor:
        return Recipe(
            method=method, base="ancestor", experts=("aligned", *fine_tuned), weights=(), parameters=parameters, seed=5
        )
    return Recipe(method=method, base="aligned", experts=fine_tuned, weights=(), parameters=parameters)


def merged(recipe: Recipe, states: Mapping[str, State], **storage: bool) -> dict[str, Tensor]:
    pool = pool_from(states, recipe.base, **storage)
    if recipe.info.importance:
        add_importance(pool, states, recipe.info.importance)
    pool.apply(recipe)
    return {key: tensor.clone() for key, tensor in pool.live.state_dict().items()}


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for key, tensor in expected.items():
        assert torch.allclose(found[key].double(), tensor, rtol=2e-6, atol=2e-6), key


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("interpolation", {}, {"t": 0.5}),
    ("interpolation", {"t": 0.3}, {"t": 0.3}),
    ("mergealign", {}, {"domain": 0.5, "alignment": 0.5}),
    ("mergealign", {"domain_weight": 0.9, "alignment_weight": 0.4}, {"domain": 0.9, "alignment": 0.4}),
    ("resta", {}, {"weight": 0.5}),
    ("resta", {"safety_weight": 1.2}, {"weight": 1.2}),
    ("safe_lora", {}, {"threshold": 0.5}),
    ("safe_lora", {"threshold": 0.0}, {"threshold": 0.0}),
    ("safe_lora", {"threshold": 0.7}, {"threshold": 0.7}),
    ("safe_lora", {"projected_layers": 2}, {"layers": 2}),
    ("safe_lora", {"projected_layers": 99}, {"layers": 99}),
    ("safemerge", {}, {"threshold": 0.35, "share": 0.2}),
    ("safemerge", {"threshold": 0.7, "safety_share": 0.6}, {"threshold": 0.7, "share": 0.6}),
    ("lata", {}, {}),
    ("lata", {"logarithmic": True, "scale": 0.7}, {"logarithmic": True, "scale": 0.7}),
    ("lata", {"by_rank": False, "threshold": 0.6}, {"by_rank": False, "threshold": 0.6}),
    ("lata", {"threshold": 0.9}, {"threshold": 0.9}),
]


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize(("method", "parameters", "values"), CASES)
def test_a_merge_equals_the_formula(
    method: str, parameters: dict[str, Any], values: dict[str, Any], experts: int
) -> None:
    states = models()
    fine_tuned = [states[name] for name in EXPERTS[:experts]]
    ancestor = [states["ancestor"]] if METHODS[method].needs_ancestor else []
    expected = getattr(references, method)(*ancestor, states["aligned"], fine_tuned, **values)
    assert_equal(merged(recipe_of(method, experts, **parameters), states), expected)


def test_the_cases_cover_every_method_and_their_thresholds_divide_the_layers() -> None:
    """Else the comparison would hold for a rule that treats all layers alike."""
    assert {method for method, _, _ in CASES} == set(rival_methods()) - set(BY_WEIGHT)
    states = models()
    cosines = references.projection_cosines(states["ancestor"], states["aligned"], states["chemistry"])
    assert set(cosines) == {"block0_wide", "block0_tall", "block1_square"}
    assert min(cosines.values()) < 0.7 < max(cosines.values())
    plain = merged(recipe_of("safe_lora", 1, threshold=0.0), states)
    some = merged(recipe_of("safe_lora", 1, threshold=0.7), states)
    changed = {key for key in plain if not torch.equal(plain[key], some[key])}
    assert changed == {key for key, value in cosines.items() if value < 0.7}


def test_dare_drops_entries_of_the_safety_vector_alone() -> None:
    states = models()
    recipe = recipe_of("resta", 2, safety_weight=1.0, drop_rate=0.4)
    found = merged(recipe, states)
    experts = [states[name] for name in EXPERTS]
    whole = references.resta(states["ancestor"], states["aligned"], experts, 0.0)
    kept = {key: (found[key].double() - whole[key]).abs() > 1e-5 for key in found}
    assert float(torch.cat([kept[key].reshape(-1) for key in ("block0_wide", "block1_kept")]).float().mean()) > 0.4
    assert not kept["block0_wide"].all()
    assert_equal(found, references.resta(states["ancestor"], states["aligned"], experts, 1.0, kept, 0.4))
    assert torch.equal(merged(recipe, states)["norm"], found["norm"])
    other = merged(recipe.model_copy(update={"seed": 6}), states)
    assert not torch.equal(other["block0_wide"], found["block0_wide"])


@pytest.mark.parametrize("storage", [{"compact": True}, {"on_host": True}, {"compact": True, "on_host": True}])
@pytest.mark.parametrize("method", rival_methods())
def test_a_merge_does_not_depend_on_where_weights_are_stored(method: str, storage: dict[str, bool]) -> None:
    states = {name: {key: one.bfloat16().float() for key, one in state.items()} for name, state in models().items()}
    recipe = recipe_of(method, 2)
    for key, tensor in merged(recipe, states).items():
        assert torch.equal(merged(recipe, states, **storage)[key], tensor), key


@pytest.mark.parametrize("method", rival_methods())
def test_a_second_merge_leaves_nothing_of_the_first(method: str) -> None:
    states = models()
    recipe = recipe_of(method, 2)
    pool = pool_from(states, recipe.base)
    add_importance(pool, states, recipe.info.importance)
    pool.apply(recipe_of(method, 1))
    pool.apply(recipe)
    for key, tensor in merged(recipe, states).items():
        assert torch.equal(pool.live.state_dict()[key], tensor), key


@pytest.mark.parametrize("method", ["interpolation", "mergealign", "resta"])
def test_mergekit_repeats_methods_that_add_whole_models(method: str) -> None:
    states = models()
    recipe = recipe_of(method, 2)
    assert recipe.in_mergekit and "last bit" in recipe.repeat_note
    assert to_mergekit(recipe) == to_mergekit(as_sum(recipe))
    expected = by_mergekit(as_sum(recipe), {name: dict(state) for name, state in states.items()})
    assert_equal(merged(recipe, states), {key: tensor.double() for key, tensor in expected.items()})


@pytest.mark.parametrize("method", (*BY_LAYER, *BY_WEIGHT))
def test_the_configuration_of_a_method_that_mergekit_lacks_says_so(method: str) -> None:
    recipe = recipe_of(method, 1)
    assert not recipe.in_mergekit
    assert method in recipe.repeat_note and METHODS[method].source in recipe.repeat_note
    assert to_mergekit(recipe).merge_method == method


def test_dropped_entries_are_noted_as_those_of_dare() -> None:
    assert "seed 5" in recipe_of("resta", 1, drop_rate=0.2).repeat_note


@pytest.mark.parametrize("method", BY_LAYER)
def test_experts_equal_to_the_aligned_model_give_the_aligned_model(method: str) -> None:
    states = models()
    states["chemistry"] = dict(states["aligned"])
    found = merged(recipe_of(method, 1, **({"scale": 0.0} if method == "lata" else {})), states)
    for key, tensor in states["aligned"].items():
        assert torch.allclose(found[key], tensor, atol=1e-6), key
