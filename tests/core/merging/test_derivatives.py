"""Derivatives of merges agree with finite differences of the merges themselves, for every method of the fast path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.contracts.merge_methods import METHODS, fast_methods, weight_count
from core.merging.differentiation import merge_difference, recipe_derivatives
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.merging.storage import Storage
from tests.core.merging.small_pools import Small, fine_tune, state_of

EXPERTS = ("a", "b", "c")
STEP = 1e-3


def pool_of(names: tuple[str, ...], storage: Storage | None = None) -> MergePool:
    base = state_of(Small(0))
    pool = MergePool(Small(0), "base", base, storage)
    for number, name in enumerate(names):
        pool.add_expert(name, fine_tune(base, number))
    return pool


def recipe_of(method: str, **changes: object) -> Recipe:
    info = METHODS[method]
    experts = EXPERTS[:1] if info.interpolates else EXPERTS
    count = weight_count(method, len(experts))
    parts = {
        "method": method,
        "base": "base",
        "experts": experts,
        "weights": (0.4,) if info.interpolates else (0.35, 0.6, 0.2, 0.5)[:count],
        "densities": (0.5, 0.7, 0.9) if info.has_densities else None,
    }
    return Recipe.model_validate({**parts, **changes})


def loss(pool: MergePool, recipe: Recipe, gradient: dict[str, Tensor]) -> float:
    pool.apply(recipe)
    live = pool.live.state_dict()
    return sum(float((live[key].double() * g.double()).sum()) for key, g in gradient.items())


def gradients() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {key: torch.randn(t.shape, generator=generator) for key, t in Small(0).state_dict().items() if key != "same"}


def summed(pool: MergePool, recipe: Recipe, gradient: dict[str, Tensor]) -> list[float]:
    rows = [recipe_derivatives(pool, key, recipe, g, densities=False, fixed_signs=True) for key, g in gradient.items()]
    return [sum(column) for column in zip(*rows, strict=True)]


def check_weights(pool: MergePool, recipe: Recipe) -> None:
    gradient = gradients()
    found = summed(pool, recipe, gradient)
    for number, weight in enumerate(recipe.weights):
        sides = [
            recipe.model_copy(
                update={"weights": (*recipe.weights[:number], weight + move, *recipe.weights[number + 1 :])}
            )
            for move in (STEP, -STEP)
        ]
        above, below = (loss(pool, side, gradient) for side in sides)
        expected = (above - below) / (2 * STEP)
        assert found[number] == pytest.approx(expected, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("method", fast_methods())
def test_weights_agree_with_finite_differences(method: str) -> None:
    recipe = recipe_of(method)
    check_weights(pool_of(recipe.experts), recipe)


@pytest.mark.parametrize("method", [name for name in fast_methods() if METHODS[name].can_normalize])
def test_normalized_weights_agree(method: str) -> None:
    if METHODS[method].merges_base:
        pytest.skip("a linear merge is always normalized")
    check_weights(pool_of(EXPERTS), recipe_of(method, normalize=True))


@pytest.mark.parametrize("parameters", [{"normalize": True}, {"lambda": 0.7}, {"normalize": True, "lambda": 1.3}])
@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "dare_ties", "dare_linear"])
def test_mergekits_options_agree(method: str, parameters: dict[str, object]) -> None:
    recipe = recipe_of(method, parameters=parameters)
    if recipe.by_mergekit:
        pytest.skip("mergekit's own code merges it")
    check_weights(pool_of(EXPERTS), recipe)


@pytest.mark.parametrize("method", ["ties", "dare_linear"])
def test_one_expert_alone(method: str) -> None:
    check_weights(pool_of(("a",)), recipe_of(method, experts=("a",), weights=(0.8,), densities=(0.4,)))


@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
def test_a_weight_of_zero_has_a_derivative(method: str) -> None:
    recipe = recipe_of(method, weights=(0.5, 0.0, 0.2))
    pool, gradient = pool_of(EXPERTS), gradients()
    moved = recipe.model_copy(update={"weights": (0.5, STEP, 0.2)})
    expected = (loss(pool, moved, gradient) - loss(pool, recipe, gradient)) / STEP
    assert summed(pool, recipe, gradient)[1] == pytest.approx(expected, rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_negative_weights_agree(method: str) -> None:
    check_weights(pool_of(EXPERTS), recipe_of(method, weights=(0.5, -0.4, 0.2)))


@pytest.mark.parametrize(
    "storage",
    [Storage(torch.device("cpu"), on_host=True), Storage(torch.device("cpu"), compact=True)],
    ids=["streamed", "compact"],
)
def test_every_storage_gives_the_same_derivatives(storage: Storage) -> None:
    recipe, gradient = recipe_of("ties"), gradients()
    assert summed(pool_of(EXPERTS, storage), recipe, gradient) == summed(pool_of(EXPERTS), recipe, gradient)


def test_a_density_derivative_is_the_difference_of_two_merges() -> None:
    recipe, pool, gradient = recipe_of("ties"), pool_of(EXPERTS), gradients()
    found = [recipe_derivatives(pool, key, recipe, g, densities=True)[4] for key, g in gradient.items()]
    sides = [recipe.model_copy(update={"densities": (0.5, d, 0.9)}) for d in (0.735, 0.665)]
    above, below = (loss(pool, side, gradient) for side in sides)
    assert sum(found) == pytest.approx((above - below) / 0.07, rel=1e-3, abs=1e-3)


def test_any_method_has_the_difference_of_its_merge() -> None:
    pool, gradient = pool_of(EXPERTS), gradients()
    sides = [
        Recipe(method="breadcrumbs", base="base", experts=EXPERTS, weights=(w, 0.2, 0.1), densities=(0.8,) * 3)
        for w in (0.52, 0.48)
    ]
    found = float(sum(merge_difference(pool, key, sides, g, 0.04) for key, g in gradient.items()))
    above, below = (loss(pool, side, gradient) for side in sides)
    assert found == pytest.approx((above - below) / 0.04, rel=1e-3, abs=1e-3)


def test_entries_that_change_sides_count() -> None:
    shape = {"matrix": (300, 300)}
    generator = torch.Generator().manual_seed(1)
    base = state_of(Small(0, shapes=shape))
    pool = MergePool(Small(0, shapes=shape), "base", base)
    for name in EXPERTS:
        pool.add_expert(name, {"matrix": base["matrix"] + torch.randn(300, 300, generator=generator)})
    recipe = recipe_of("ties", weights=(0.5, 0.4, 0.3))
    gradient = torch.randn(300, 300, generator=generator) + pool.merged_tensor("matrix", recipe) - base["matrix"]
    moved = [recipe.model_copy(update={"weights": (0.5 + side, 0.4, 0.3)}) for side in (0.05, -0.05)]
    expected = float(merge_difference(pool, "matrix", moved, gradient, 0.1))
    found = recipe_derivatives(pool, "matrix", recipe, gradient, densities=False)[0]
    fixed = recipe_derivatives(pool, "matrix", recipe, gradient, densities=False, fixed_signs=True)[0]
    assert found == pytest.approx(expected, rel=0.05)
    assert abs(fixed - expected) > 2 * abs(found - expected)
