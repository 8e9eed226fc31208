"""The grids of the paper's appendix, and what other methods and pools get in their place."""

from __future__ import annotations

from itertools import product

import pytest

from core.contracts.merge_methods import FastMethod, fast_methods
from core.errors import SpecError
from core.search.genome import Genome
from core.search.grid import Grid, grid_recipes


def genome_of(method: FastMethod, experts: int, base_is_member: bool = True) -> Genome:
    return Genome(method, "base", tuple("abcd"[:experts]), base_is_member)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear"])
@pytest.mark.parametrize(
    ("experts", "member", "weights"),
    [
        (1, True, (0.25, 0.5, 1.0)),
        (2, False, (0.25, 0.5, 1.0)),
        (2, True, (0.1, 0.25, 0.33, 0.5, 1.0)),
        (4, True, (0.1, 0.25, 0.33, 0.5, 1.0)),
    ],
)
def test_sparse_methods_cross_weight_and_density(
    method: FastMethod, experts: int, member: bool, weights: tuple[float, ...]
) -> None:
    recipes = grid_recipes(genome_of(method, experts, member))
    expected = [((w,) * experts, (d,) * experts) for w, d in product(weights, (0.25, 0.5, 1.0))]
    assert [(recipe.weights, recipe.densities) for recipe in recipes] == expected
    assert {recipe.method for recipe in recipes} == {method}


def test_all_candidates_of_a_grid_share_their_masks() -> None:
    assert {recipe.seed for recipe in grid_recipes(Genome("dare_ties", "base", ("a",), seed=7))} == {7}


def test_slerp_has_ten_steps_that_end_at_the_expert() -> None:
    expected = [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,), (0.6,), (0.7,), (0.8,), (0.9,), (1.0,)]
    assert [recipe.weights for recipe in grid_recipes(genome_of("slerp", 1))] == expected


def test_task_arithmetic_has_weights_alone() -> None:
    assert [recipe.weights for recipe in grid_recipes(genome_of("task_arithmetic", 1))] == [(0.25,), (0.5,), (1.0,)]


def test_linear_shares_add_up_to_one_and_appear_once() -> None:
    assert [recipe.weights for recipe in grid_recipes(genome_of("linear", 1))] == [(0.75, 0.25), (0.5, 0.5), (0.0, 1.0)]
    three = [recipe.weights for recipe in grid_recipes(genome_of("linear", 2))]
    assert three == [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33), (0.0, 0.5, 0.5)]


def test_an_outside_ancestor_has_no_share() -> None:
    assert [recipe.weights for recipe in grid_recipes(genome_of("linear", 2, False))] == [(0.0, 0.5, 0.5)]


def test_a_method_without_a_grid_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        grid_recipes(genome_of("passthrough", 1))
    assert caught.value.code == "method-without-grid"


def test_the_grid_is_asked_for_once_and_its_best_is_the_result() -> None:
    grid = Grid(genome_of("ties", 1))
    recipes = grid.ask()
    assert len(recipes) == grid.size == 9
    grid.tell([1.0] * 9)
    assert grid.ask() == []
    assert grid.result(recipes[4]) == recipes[4]
    assert grid.result(None) is None
    assert grid.ended_early == ""


@pytest.mark.parametrize("method", fast_methods())
def test_every_method_has_a_grid(method: FastMethod) -> None:
    recipes = grid_recipes(genome_of(method, 1))
    assert len(recipes) > 1
    assert {recipe.method for recipe in recipes} == {method}
