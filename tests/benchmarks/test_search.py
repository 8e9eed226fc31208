"""The search benchmark on its synthetic and tiny problems: what it counts is what happened."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.search import NEAR, SEARCHES, TOLERANCES, measure, search
from benchmarks.search_problems import best_synthetic, synthetic, synthetic_problems, tiny_problems
from core.merging.recipes import Recipe
from core.search.evomm import is_flat, population_size

GENOME = synthetic_problems()[0].genome


def test_the_best_known_is_lower_than_what_any_search_finds() -> None:
    first, *others = measure("synthetic", seeds=2, steps=40, tolerances=TOLERANCES | {"evomm": 0.02})["problems"]
    assert first["best_known"] <= best_synthetic()
    assert [problem["parameters"] for problem in (first, *others)] == [2, 4, 12]
    for problem in (first, *others):
        runs = [run for name in SEARCHES for run in problem["searches"][name]["seeds"]]
        assert all(run["gap"] >= 0 and run["stopped_after"] <= 40 for run in runs)
        assert all((run["needed"] is None) == (run["gap"] > NEAR - 1) for run in runs)
        plain, early = (problem["searches"][name]["seeds"] for name in ("plain", "evomm"))
        assert all(whole["gap"] <= short["gap"] for whole, short in zip(plain, early, strict=True))
    assert first["grid"]["candidates"] == 9


def test_a_seed_stops_where_its_rule_says_and_is_near_where_it_says() -> None:
    problem = measure("synthetic", 1, 100, TOLERANCES | {"evomm": 0.01})["problems"][0]
    (plain,), (evomm,), (bayes,) = (problem["searches"][name]["seeds"] for name in SEARCHES)
    values = search("evomm", GENOME, synthetic, 100, 0, 0.01)
    size = population_size(len(GENOME.searched))
    assert evomm["stopped_after"] == len(values) < 100
    assert is_flat(values[-2 * size : -size], values[-size:], 0.01)
    assert bayes["stopped_after"] == len(search("bayes", GENOME, synthetic, 100, 0, None)) < 40
    whole, limit = search("plain", GENOME, synthetic, 100, 0, None), best_synthetic() * NEAR
    assert min(whole[: plain["near_after"]]) <= limit < min(whole[: plain["near_after"] - 1])


@pytest.mark.parametrize(("weight", "density"), [(0.2, 0.3), (1.4, 1.0)])
def test_the_synthetic_objective_rises_away_from_its_best(weight: float, density: float) -> None:
    recipe = Recipe(method="ties", base="base", experts=("a",), weights=(weight,), densities=(density,))
    assert sum(synthetic(recipe)) > 1.5 * best_synthetic()


def test_the_tiny_problems_are_real_merges() -> None:
    found = tiny_problems()
    assert [len(problem.genome.searched) for problem in found] == [2, 4, 12]
    for problem in found:
        low, start = (
            problem.genome.recipe(point)
            for point in (
                [0.0] * len(problem.genome.searched),
                [gene.unit_start for gene in problem.genome.searched],
            )
        )
        first = problem.objective(start)
        assert problem.objective(low) != first == problem.objective(start)


def test_the_command_prints_one_object_for_the_tiny_pool() -> None:
    command = [sys.executable, "-m", "benchmarks.search", "--tiny", "--json", "--seeds", "1", "--steps", "14"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (result["pool"], result["pairs"]) == ("tiny", None)
    assert [problem["parameters"] for problem in result["problems"]] == [2, 4, 12]
