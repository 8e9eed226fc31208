"""EvoMM with a surrogate: repeatable, within its budget, frugal, and true about what was scored."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from core.merging.recipes import Recipe
from core.search.evomm import EvoMM, is_flat
from core.search.genome import Genome
from core.search.optimizer import Optimizer
from core.search.parameter_groups import Layout
from core.search.registry import make_optimizer
from core.search.search_plan import SearchPlan
from core.search.search_records import PENALTY
from core.search.surrogate import WINDOW, EvoMMSurrogate
from tests.core.search.test_evomm import ONE_PARAMETER, SIX_PARAMETERS, TWO_PARAMETERS, terms_of, unit_point

GROUPS = Genome("ties", "base", ("a",), layout=Layout(12, 2))
GENOMES = pytest.mark.parametrize(
    "genome", [ONE_PARAMETER, TWO_PARAMETERS, SIX_PARAMETERS, GROUPS], ids=["1", "2", "6", "12"]
)
Objective = Callable[[Recipe], float]


def numbers(recipe: Recipe) -> list[float]:
    parts = recipe.scopes or (recipe,)
    return [number for part in parts for number in (*part.weights, *(part.densities or ()))]


def bowl(recipe: Recipe) -> float:
    return sum((x - 0.4 - 0.03 * i) ** 2 for i, x in enumerate(numbers(recipe)))


def bent(recipe: Recipe) -> float:
    """Far from quadratic, lowest at weights of about 0.5 with nothing trimmed."""
    parts = recipe.scopes or (recipe,)
    kept = sum(sum(part.weights) * (part.densities or (1.0,))[0] ** 0.1 for part in parts) / len(parts)
    return 3 * math.exp(-3 * kept) + 1.5 * kept


def drive(optimizer: Optimizer, objective: Objective) -> list[list[Recipe]]:
    asked = []
    while recipes := optimizer.ask():
        np.random.seed(7)  # whatever others do with numpy's global state must not matter
        asked.append(recipes)
        objectives = [objective(recipe) for recipe in recipes]
        optimizer.tell(objectives, terms_of(objectives))
    return asked


def flat(asked: list[list[Recipe]]) -> list[Recipe]:
    return [recipe for recipes in asked for recipe in recipes]


@GENOMES
def test_the_same_seed_and_values_give_the_same_candidates(genome: Genome) -> None:
    first = drive(EvoMMSurrogate(genome, 40, 5), bent)
    np.random.standard_normal(3)
    assert drive(EvoMMSurrogate(genome, 40, 5), bent) == first
    assert drive(EvoMMSurrogate(genome, 40, 6), bent) != first


@GENOMES
@pytest.mark.parametrize("steps", [1, 3, 17, 31])
def test_the_budget_is_never_exceeded(genome: Genome, steps: int) -> None:
    optimizer = EvoMMSurrogate(genome, steps, 0)
    done = len(flat(drive(optimizer, bent)))
    assert done <= steps == optimizer.size
    assert (done == steps) == (optimizer.ended_early == "") or genome is ONE_PARAMETER  # which converges at once
    assert optimizer.ask() == []


def test_numpys_global_random_state_is_left_alone() -> None:
    np.random.seed(11)
    expected = np.random.standard_normal(2)
    np.random.seed(11)
    optimizer = EvoMMSurrogate(TWO_PARAMETERS, 20, 3)
    while recipes := optimizer.ask():
        optimizer.tell([bowl(recipe) for recipe in recipes])
    assert np.array_equal(np.random.standard_normal(2), expected)


def test_the_model_saves_most_of_the_candidates_of_a_bowl() -> None:
    for genome, steps in ((TWO_PARAMETERS, 25), (SIX_PARAMETERS, 70)):
        found = flat(drive(EvoMMSurrogate(genome, steps, 1), bowl))
        plain = flat(drive(EvoMM(genome, steps, 1), bowl))
        assert bowl(min(found, key=bowl)) < 0.01 * bowl(min(plain, key=bowl))


def test_an_optimum_on_the_edge_is_found() -> None:
    best = min(flat(drive(EvoMMSurrogate(TWO_PARAMETERS, 60, 0), bent)), key=bent)
    corner = flat(drive(EvoMMSurrogate(TWO_PARAMETERS, 60, 0), lambda recipe: sum(numbers(recipe))))
    assert bent(best) == pytest.approx(0.5 + 0.5 * math.log(6), abs=1e-3)
    assert unit_point(TWO_PARAMETERS, min(corner, key=lambda recipe: sum(numbers(recipe)))) == pytest.approx(
        [0, 0], abs=0.02
    )


def test_later_generations_are_asked_for_in_parts() -> None:
    sizes = [len(recipes) for recipes in drive(EvoMMSurrogate(TWO_PARAMETERS, 60, 0), bowl)]
    assert sizes[0] == 5
    assert sizes.count(1) > len(sizes) / 2


def test_many_parameters_are_first_searched_as_few_shared_ones() -> None:
    for genome, shared in ((GROUPS, 2), (Genome("ties", "base", ("a", "b")), 2), (TWO_PARAMETERS, None)):
        found = flat(drive(EvoMMSurrogate(genome, 40, 0), bent))
        alike = [len(set(numbers(recipe))) <= 2 for recipe in found]
        assert alike[:9] == [shared is not None or len(numbers(found[0])) == 2] * 9
        assert shared is None or not any(alike[24:])


def test_the_shared_parameters_are_searched_until_they_are_flat() -> None:
    def shared(objective: Objective) -> int:
        found = flat(drive(EvoMMSurrogate(GROUPS, 40, 0), objective))
        return sum(len({part.weights for part in recipe.scopes or (recipe,)}) == 1 for recipe in found)

    assert shared(lambda recipe: 1e-6 * bent(recipe)) < shared(lambda recipe: 1e3 * bent(recipe)) <= 24


def test_equal_shares_are_no_first_stage() -> None:
    linear = Genome("linear", "base", ("a", "b"), layout=Layout(4, 2))
    assert linear.shared_axes == (0, 1, 2, 0, 1, 2)
    assert Genome("task_arithmetic", "base", ("a", "b"), normalize=True).shared_axes == (0, 1)
    assert Genome("ties", "base", ("a", "b")).shared_axes == (0, 0, 1, 1)


def test_it_ends_when_what_was_scored_is_flat_and_says_so() -> None:
    optimizer = EvoMMSurrogate(TWO_PARAMETERS, 400, 0, stop_when_flat=0.001)
    values = [bowl(recipe) for recipe in flat(drive(optimizer, bowl))]
    assert len(values) < 60
    assert is_flat(values[:-WINDOW], values[-WINDOW:], 0.001)
    assert not is_flat(values[: -WINDOW - 1], values[-WINDOW - 1 : -1], 0.001)
    assert "less than 0.001 nats" in optimizer.ended_early
    assert optimizer.ask() == []


def test_a_tolerance_changes_no_candidate_before_the_end() -> None:
    short, whole = (flat(drive(EvoMMSurrogate(SIX_PARAMETERS, 90, 2, limit), bowl)) for limit in (0.01, None))
    assert len(short) < len(whole)
    assert whole[: len(short)] == short


def test_convergence_of_the_strategy_is_reported() -> None:
    optimizer = EvoMMSurrogate(TWO_PARAMETERS, 5000, 0)
    drive(optimizer, bowl)
    assert "CMA-ES has converged" in optimizer.ended_early


def test_failures_steer_the_search_away() -> None:
    def objective(recipe: Recipe) -> float:
        return PENALTY if recipe.weights[0] > 0.8 else bowl(recipe)

    found = flat(drive(EvoMMSurrogate(TWO_PARAMETERS, 60, 1), objective))
    assert min(map(objective, found)) < 1e-3
    assert objective(found[-1]) < PENALTY


@pytest.mark.parametrize("genome", [TWO_PARAMETERS, SIX_PARAMETERS])
@pytest.mark.parametrize("tolerance", [None, 0.01])
def test_failures_alone_are_no_convergence(genome: Genome, tolerance: float | None) -> None:
    optimizer = EvoMMSurrogate(genome, 60, 0, tolerance)
    assert len(flat(drive(optimizer, lambda _recipe: PENALTY))) == 60
    narrow = EvoMMSurrogate(genome, 200, 0)
    found = flat(drive(narrow, lambda recipe: PENALTY if sum(recipe.weights) > 0.05 else bowl(recipe)))
    assert any(sum(recipe.weights) <= 0.05 for recipe in found[-5:])


def test_mergekits_methods_first_share_their_parameters() -> None:
    genome = Genome("breadcrumbs", "base", ("a", "b"))
    assert genome.shared_axes == (0, 0, 1, 1, 2, 2)
    normalized = Genome("nuslerp", "base", ("a", "b"))
    assert normalized.shared_axes == tuple(range(len(normalized.searched)))
    recipes = flat(drive(EvoMMSurrogate(genome, 30, 1), bowl))
    assert len(recipes) == 30
    assert recipes[0].weights[0] == recipes[0].weights[1] and recipes[-1].weights[0] != recipes[-1].weights[1]


def test_a_method_without_parameters_has_one_candidate() -> None:
    genome = Genome("model_stock", "base", ("a", "b"))
    plan = SearchPlan("evomm_surrogate", genome, 9, 0.3, True, 0, optimizer="evomm_surrogate")
    assert len(flat(drive(make_optimizer(plan), bowl))) == 1
