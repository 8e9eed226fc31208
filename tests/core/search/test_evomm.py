"""EvoMM's optimiser: repeatable, exact in its budget, and able to find an optimum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from core.search.evomm import EvoMM, population_size
from core.search.genome import Genome
from core.search.running import PENALTY

TWO_GENES = Genome("ties", "base", ("a",))
ONE_GENE = Genome("task_arithmetic", "base", ("a",))
SIX_GENES = Genome("ties", "base", ("a", "b", "c"))


def minimise(
    genome: Genome, steps: int, objective: Callable[[list[float]], float], seed: int = 0
) -> list[list[list[float]]]:
    """Points of each generation."""
    optimizer, generations = EvoMM(genome, steps, seed), []
    while points := optimizer.ask():
        np.random.seed(7)  # whatever others do with numpy's global state must not matter
        generations.append(points)
        optimizer.tell([objective(point) for point in points])
    return generations


def bowl(point: list[float]) -> float:
    return sum((x - 0.3 - 0.1 * i) ** 2 for i, x in enumerate(point))


@pytest.mark.parametrize("genome", [ONE_GENE, TWO_GENES, SIX_GENES])
def test_the_same_seed_gives_the_same_points(genome: Genome) -> None:
    first = minimise(genome, 30, bowl, seed=5)
    np.random.standard_normal(3)
    assert minimise(genome, 30, bowl, seed=5) == first
    assert minimise(genome, 30, bowl, seed=6) != first


def test_numpys_global_random_state_is_left_alone() -> None:
    np.random.seed(11)
    expected = np.random.standard_normal(2)
    np.random.seed(11)
    EvoMM(TWO_GENES, 8, seed=3).ask()
    assert np.array_equal(np.random.standard_normal(2), expected)


def test_the_first_generation_does_not_depend_on_the_objective() -> None:
    assert minimise(TWO_GENES, 6, bowl)[0] == minimise(TWO_GENES, 6, lambda point: -point[0])[0]


@pytest.mark.parametrize(("parameters", "population"), [(1, 4), (2, 6), (3, 7), (4, 8), (6, 9), (8, 10)])
def test_population_sizes(parameters: int, population: int) -> None:
    assert population_size(parameters) == population


@pytest.mark.parametrize("genome", [ONE_GENE, TWO_GENES, SIX_GENES])
@pytest.mark.parametrize("steps", [1, 4, 25, 31])
def test_the_budget_is_used_exactly(genome: Genome, steps: int) -> None:
    sizes = [len(points) for points in minimise(genome, steps, bowl)]
    population = population_size(len(genome.genes))
    assert sum(sizes) == steps
    assert all(size == population for size in sizes[:-1])


def test_an_optimizer_that_has_spent_its_budget_asks_for_nothing_more() -> None:
    optimizer = EvoMM(TWO_GENES, 6, seed=0)
    optimizer.tell([bowl(point) for point in optimizer.ask()])
    assert optimizer.ask() == []
    assert optimizer.ask() == []


@pytest.mark.parametrize(("genome", "steps"), [(ONE_GENE, 60), (TWO_GENES, 120), (SIX_GENES, 400)])
def test_the_optimum_of_a_bowl_is_found(genome: Genome, steps: int) -> None:
    points = [point for generation in minimise(genome, steps, bowl) for point in generation]
    best = min(points, key=bowl)
    assert best == pytest.approx([0.3 + 0.1 * i for i in range(len(genome.genes))], abs=0.02)


def test_an_optimum_in_a_corner_is_found() -> None:
    points = [point for generation in minimise(TWO_GENES, 120, sum) for point in generation]
    assert min(points, key=sum) == pytest.approx([0.0, 0.0], abs=0.02)
    assert all(0 <= x <= 1 for point in points for x in point)


def test_failures_steer_the_search_away() -> None:
    def objective(point: list[float]) -> float:
        return PENALTY if point[0] > 0.5 else (point[0] - 0.4) ** 2

    generations = minimise(TWO_GENES, 120, objective, seed=1)
    assert min(objective(point) for points in generations for point in points) < 1e-3
    assert sum(point[0] > 0.5 for point in generations[-1]) <= 2


def test_nothing_but_failures_is_no_crash() -> None:
    assert sum(map(len, minimise(TWO_GENES, 12, lambda _point: PENALTY))) >= 6
