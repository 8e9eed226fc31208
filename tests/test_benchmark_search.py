"""The search benchmark on its synthetic objective: what it counts is what happened."""

from __future__ import annotations

import pytest

from benchmarks.search import GENOME, NEAR, best_synthetic, measure, search, synthetic
from core.merging.recipes import Recipe
from core.search.evomm import is_flat, population_size


def test_the_best_known_is_lower_than_what_any_search_finds() -> None:
    result = measure("synthetic", seeds=2, steps=60, tolerance=0.02)
    assert result["best_known"] <= best_synthetic()
    assert all(run["gap_of_plain"] >= 0 for run in result["seeds"])
    assert all(run["gap_when_stopped"] >= run["gap_of_plain"] for run in result["seeds"])
    assert result["grid"]["candidates"] == 9
    assert result["stopped_after"]["max"] <= 60


def test_a_seed_stops_where_its_rule_says_and_is_near_where_it_says() -> None:
    (run,) = measure("synthetic", seeds=1, steps=100, tolerance=0.01)["seeds"]
    values = search(synthetic, 100, 0, 0.01)
    size = population_size(len(GENOME.genes))
    assert run["stopped_after"] == len(values) < 100
    assert is_flat(values[-2 * size : -size], values[-size:], 0.01)
    whole, limit = search(synthetic, 100, 0, None), best_synthetic() * NEAR
    assert min(whole[: run["near_after"]]) <= limit < min(whole[: run["near_after"] - 1])


@pytest.mark.parametrize(("weight", "density"), [(0.2, 0.3), (1.4, 1.0)])
def test_the_synthetic_objective_rises_away_from_its_best(weight: float, density: float) -> None:
    recipe = Recipe(method="ties", base="base", experts=("a",), weights=(weight,), densities=(density,))
    assert synthetic(recipe) > 1.5 * best_synthetic()
