"""EvoMM's optimizer: repeatable, exact in its budget, and able to find an optimum."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from core.merging.recipes import Recipe
from core.search.evomm import EvoMM, is_flat, population_size
from core.search.genome import Genome
from core.search.optimizer import Terms
from core.search.search_records import PENALTY

TWO_PARAMETERS = Genome("ties", "base", ("a",))
ONE_PARAMETER = Genome("task_arithmetic", "base", ("a",))
SIX_PARAMETERS = Genome("ties", "base", ("a", "b", "c"))


def minimise(
    genome: Genome, steps: int, objective: Callable[[list[float]], float], seed: int = 0
) -> list[list[list[float]]]:
    """Points of each generation."""
    return drive(EvoMM(genome, steps, seed), objective)


def drive(optimizer: EvoMM, objective: Callable[[list[float]], float]) -> list[list[list[float]]]:
    generations = []
    while recipes := optimizer.ask():
        np.random.seed(7)  # whatever others do with numpy's global state must not matter
        points = [unit_point(optimizer.genome, recipe) for recipe in recipes]
        generations.append(points)
        objectives = [objective(point) for point in points]
        optimizer.tell(objectives, terms_of(objectives))
    return generations


def terms_of(objectives: list[float]) -> list[Terms]:
    """As a search tells them: none of a candidate that failed."""
    return [() if objective == PENALTY else (objective,) for objective in objectives]


def unit_point(genome: Genome, recipe: Recipe) -> list[float]:
    """The point of the unit cube that a recipe stands for."""
    values = (*recipe.weights, *(recipe.densities or ()))
    return [
        (value - parameter.low) / (parameter.high - parameter.low)
        for parameter, value in zip(genome.searched, values, strict=True)
    ]


def bowl(point: list[float]) -> float:
    return sum((x - 0.3 - 0.1 * i) ** 2 for i, x in enumerate(point))


@pytest.mark.parametrize("genome", [ONE_PARAMETER, TWO_PARAMETERS, SIX_PARAMETERS])
def test_the_same_seed_gives_the_same_points(genome: Genome) -> None:
    first = minimise(genome, 30, bowl, seed=5)
    np.random.standard_normal(3)
    assert minimise(genome, 30, bowl, seed=5) == first
    assert minimise(genome, 30, bowl, seed=6) != first


def test_numpys_global_random_state_is_left_alone() -> None:
    np.random.seed(11)
    expected = np.random.standard_normal(2)
    np.random.seed(11)
    EvoMM(TWO_PARAMETERS, 8, seed=3).ask()
    assert np.array_equal(np.random.standard_normal(2), expected)


def test_the_first_generation_does_not_depend_on_the_objective() -> None:
    assert minimise(TWO_PARAMETERS, 6, bowl)[0] == minimise(TWO_PARAMETERS, 6, lambda point: -point[0])[0]


@pytest.mark.parametrize(("parameters", "population"), [(1, 4), (2, 6), (3, 7), (4, 8), (6, 9), (8, 10)])
def test_population_sizes(parameters: int, population: int) -> None:
    assert population_size(parameters) == population


@pytest.mark.parametrize("genome", [ONE_PARAMETER, TWO_PARAMETERS, SIX_PARAMETERS])
@pytest.mark.parametrize("steps", [1, 4, 25, 31])
def test_the_budget_is_used_exactly(genome: Genome, steps: int) -> None:
    sizes = [len(points) for points in minimise(genome, steps, bowl)]
    population = population_size(len(genome.searched))
    assert sum(sizes) == steps
    assert all(size == population for size in sizes[:-1])


def test_an_optimizer_that_has_spent_its_budget_asks_for_nothing_more() -> None:
    optimizer = EvoMM(TWO_PARAMETERS, 6, seed=0)
    optimizer.tell([float(number) for number, _ in enumerate(optimizer.ask())])
    assert optimizer.ask() == []
    assert optimizer.ask() == []
    assert optimizer.ended_early == ""


@pytest.mark.parametrize(("genome", "steps"), [(ONE_PARAMETER, 60), (TWO_PARAMETERS, 120), (SIX_PARAMETERS, 400)])
def test_the_optimum_of_a_bowl_is_found(genome: Genome, steps: int) -> None:
    points = [point for generation in minimise(genome, steps, bowl) for point in generation]
    best = min(points, key=bowl)
    assert best == pytest.approx([0.3 + 0.1 * i for i in range(len(genome.searched))], abs=0.02)


def test_an_optimum_in_a_corner_is_found() -> None:
    points = [point for generation in minimise(TWO_PARAMETERS, 120, sum) for point in generation]
    assert min(points, key=sum) == pytest.approx([0.0, 0.0], abs=0.02)
    assert all(0 <= x <= 1 for point in points for x in point)


def test_failures_steer_the_search_away() -> None:
    def objective(point: list[float]) -> float:
        return PENALTY if point[0] > 0.5 else (point[0] - 0.4) ** 2

    generations = minimise(TWO_PARAMETERS, 120, objective, seed=1)
    assert min(objective(point) for points in generations for point in points) < 1e-3
    assert sum(point[0] > 0.5 for point in generations[-1]) <= 2


@pytest.mark.parametrize("genome", [ONE_PARAMETER, TWO_PARAMETERS, SIX_PARAMETERS])
def test_failures_alone_are_no_convergence(genome: Genome) -> None:
    optimizer = EvoMM(genome, 200, 0, stop_when_flat=0.01)
    assert sum(map(len, drive(optimizer, lambda _point: PENALTY))) == 200
    assert optimizer.ended_early == ""


def test_a_generation_of_failures_leaves_the_strategy_unchanged() -> None:
    """Where the few that do not fail lie in a corner, far from the start."""
    generations = minimise(TWO_PARAMETERS, 200, lambda point: PENALTY if point[0] > 0.04 else point[0] + point[1])
    assert min(generations[-1])[0] <= 0.04


def test_a_flat_search_ends_early_and_says_why() -> None:
    optimizer = EvoMM(TWO_PARAMETERS, 400, seed=0, stop_when_flat=0.01)
    assert optimizer.ended_early == ""
    generations = drive(optimizer, bowl)
    objectives = [[bowl(point) for point in points] for points in generations]
    assert sum(map(len, generations)) < 150
    assert is_flat(objectives[-2], objectives[-1], 0.01)
    assert not any(is_flat(before, last, 0.01) for before, last in pairwise(objectives[:-1]))
    assert "less than 0.01 nats" in optimizer.ended_early
    assert optimizer.ask() == []


def test_a_smaller_tolerance_searches_longer() -> None:
    lengths = [len(drive(EvoMM(TWO_PARAMETERS, 400, 0, tolerance), bowl)) for tolerance in (0.1, 0.01, 0.0001, None)]
    assert lengths == sorted(set(lengths))


def test_a_tolerance_changes_no_candidate_before_the_end() -> None:
    short, long = (drive(EvoMM(TWO_PARAMETERS, 200, 4, tolerance), bowl) for tolerance in (0.01, None))
    assert len(short) < len(long)
    assert long[: len(short)] == short


def test_convergence_of_the_strategy_is_reported() -> None:
    optimizer = EvoMM(TWO_PARAMETERS, 10_000, seed=0)
    drive(optimizer, bowl)
    assert "CMA-ES has converged" in optimizer.ended_early
    assert "tol" in optimizer.ended_early


@pytest.mark.parametrize(
    ("before", "last", "flat"),
    [
        ((1.0, 2.0), (1.004, 1.009), True),
        ((1.0, 2.0), (1.004, 1.02), False),
        ((1.1, 2.0), (1.004, 1.009), False),
        ((1.0, 1.0), (1.0, 1.01), False),
        ((1.0, 1.0), (1.0, PENALTY), False),
        ((), (1.0, 1.0), False),
    ],
)
def test_flat_means_no_better_and_no_spread(before: tuple[float, ...], last: tuple[float, ...], flat: bool) -> None:
    assert is_flat(before, last, 0.01) is flat
