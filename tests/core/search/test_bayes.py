"""Bayesian optimization: it is repeatable, keeps its budget, needs few candidates, and ends when gains are small."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from core.merging.recipes import Recipe
from core.search.bayes import FIRST_STAGE, Bayes
from core.search.evomm import EvoMM
from core.search.genome import Genome, LogParameter
from core.search.optimizer import Terms
from core.search.parameter_groups import Layout
from core.search.registry import make_optimizer
from core.search.search_plan import SearchPlan
from core.search.search_records import PENALTY
from tests.core.search.test_evomm import ONE_PARAMETER, SIX_PARAMETERS, TWO_PARAMETERS

GROUPS = Genome("ties", "base", ("a",), layout=Layout(12, 2))
GENOMES = pytest.mark.parametrize(
    "genome", [ONE_PARAMETER, TWO_PARAMETERS, SIX_PARAMETERS, GROUPS], ids=["1", "2", "6", "12"]
)
Losses = Callable[[Recipe], Terms]


def valley(recipe: Recipe) -> Terms:
    """Refusals are lost and skill is gained with each weight, as in recorded runs; the sum is lowest in a valley."""
    parts = recipe.scopes or (recipe,)
    kept = [w * d**0.3 for part in parts for w, d in zip(part.weights, part.densities or (1.0,) * 3, strict=False)]
    drift, skill = sum(kept) / len(kept), sum(weight**0.9 for weight in kept) / len(kept)
    return 0.05 * math.exp(3 * drift), 0.3 * math.exp(-4 * skill)


def lowest(recipes: list[Recipe], losses: Losses = valley) -> float:
    return min(sum(losses(recipe)) for recipe in recipes)


def drive(optimizer: Bayes | EvoMM, losses: Losses = valley) -> list[Recipe]:
    asked: list[Recipe] = []
    while recipes := optimizer.ask():
        np.random.seed(7)  # whatever others do with numpy's global state must not matter
        asked += recipes
        terms = [losses(recipe) for recipe in recipes]
        optimizer.tell([sum(row) if row else PENALTY for row in terms], terms)
    return asked


@GENOMES
def test_the_same_seed_and_values_give_the_same_candidates(genome: Genome) -> None:
    first = drive(Bayes(genome, 18, 5))
    np.random.standard_normal(3)
    assert drive(Bayes(genome, 18, 5)) == first
    assert drive(Bayes(genome, 18, 6)) != first


@GENOMES
@pytest.mark.parametrize("steps", [1, 3, 17])
def test_the_budget_is_never_exceeded(genome: Genome, steps: int) -> None:
    optimizer = Bayes(genome, steps, 0)
    done = len(drive(optimizer))
    assert done <= steps == optimizer.size
    assert (done == steps) == (optimizer.ended_early == "")
    assert optimizer.ask() == []


def test_numpys_global_random_state_is_left_alone() -> None:
    np.random.seed(11)
    expected = np.random.standard_normal(2)
    np.random.seed(11)
    optimizer = Bayes(TWO_PARAMETERS, 8, 3)
    while recipes := optimizer.ask():
        terms = [valley(recipe) for recipe in recipes]
        optimizer.tell([sum(row) for row in terms], terms)
    assert np.array_equal(np.random.standard_normal(2), expected)


@pytest.mark.parametrize("genome", [TWO_PARAMETERS, Genome("ties", "base", ("a", "b"))], ids=["2", "4"])
def test_it_is_nearer_after_a_third_of_the_candidates(genome: Genome) -> None:
    optimizer = Bayes(genome, 33, 1)
    found, plain = drive(optimizer), drive(EvoMM(genome, 100, 1))
    assert lowest(found) < 1.002 * lowest(plain)


def test_it_ends_when_the_expected_gain_is_small() -> None:
    optimizer = Bayes(TWO_PARAMETERS, 200, 0)
    whole = drive(optimizer)
    assert len(whole) < 40
    assert "no candidate is expected to be better" in optimizer.ended_early
    loose = Bayes(TWO_PARAMETERS, 200, 0, stop_when_flat=0.05)
    short = drive(loose)
    assert len(short) < len(whole) and whole[: len(short)] == short
    assert "0.05 nats" in loose.ended_early


def test_an_optimum_on_the_edge_is_found() -> None:
    def rising(recipe: Recipe) -> Terms:
        return math.exp(recipe.weights[0]), (recipe.densities or (1.0,))[0]

    found = min(drive(Bayes(TWO_PARAMETERS, 30, 0), rising), key=lambda recipe: sum(rising(recipe)))
    assert (found.weights[0], (found.densities or ())[0]) == pytest.approx((0.0, 0.05), abs=0.02)


def test_densities_are_searched_on_a_logarithmic_scale() -> None:
    searched = Bayes(SIX_PARAMETERS, 9, 0).genome.searched
    assert [isinstance(parameter, LogParameter) for parameter in searched] == [False] * 3 + [True] * 3
    assert [parameter.unit_start for parameter in searched[3:]] == pytest.approx([0.5] * 3)
    assert not any(isinstance(parameter, LogParameter) for parameter in SIX_PARAMETERS.searched)


def test_many_parameters_are_first_searched_as_few_shared_ones() -> None:
    found = drive(Bayes(GROUPS, 30, 0))
    alike = [len({(part.weights, part.densities) for part in recipe.scopes or (recipe,)}) == 1 for recipe in found]
    first = alike.index(False)
    assert 4 <= first <= FIRST_STAGE
    assert not any(alike[first:])


def test_failures_steer_the_search_away() -> None:
    def losses(recipe: Recipe) -> Terms:
        return () if recipe.weights[0] > 0.8 else valley(recipe)

    found = drive(Bayes(TWO_PARAMETERS, 30, 1), losses)
    scored = [recipe for recipe in found if losses(recipe)]
    assert lowest(scored) < 1.01 * lowest(drive(EvoMM(TWO_PARAMETERS, 100, 1)))
    assert len(scored) > len(found) / 2


@GENOMES
def test_while_all_fails_it_looks_everywhere(genome: Genome) -> None:
    optimizer = Bayes(genome, 30, 0)
    found = drive(optimizer, lambda _recipe: ())
    assert len(set(found)) == 30 and optimizer.ended_early == ""
    assert min(recipe.weights[0] for recipe in found) < 0.2 and max(recipe.weights[0] for recipe in found) > 1.2


@GENOMES
@pytest.mark.parametrize("losses", [lambda _: (0.0, 0.0), lambda recipe: tuple(1e-7 * term for term in valley(recipe))])
def test_losses_of_next_to_nothing_end_it(genome: Genome, losses: Losses) -> None:
    optimizer = Bayes(genome, 40, 0)
    assert len(drive(optimizer, losses)) < 40
    assert "1e-09 nats" in optimizer.ended_early


def test_mergekits_methods_first_share_their_parameters() -> None:
    recipes = drive(
        Bayes(Genome("breadcrumbs", "base", ("a", "b")), 22, 1), lambda recipe: (recipe.weights[0] + 1, 1.0)
    )
    assert recipes[0].weights[0] == recipes[0].weights[1] and recipes[-1].weights[0] != recipes[-1].weights[1]


def test_a_method_without_parameters_has_one_candidate() -> None:
    plan = SearchPlan("bayes", Genome("model_stock", "base", ("a", "b")), 9, 0.3, True, 0, optimizer="bayes")
    optimizer = make_optimizer(plan)
    assert len(optimizer.ask()) == 1
    optimizer.tell([1.0], [(1.0,)])
    assert optimizer.ask() == []
