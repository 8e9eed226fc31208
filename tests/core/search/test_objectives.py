"""What a search minimizes and tells its optimizer: feasible first, the front grows, a penalty stays a penalty."""

from __future__ import annotations

import math

import pytest
import torch

from core.contracts.events import CandidateScored
from core.errors import MergeError
from core.search.objectives import Goal, goal_of, loss_terms
from core.search.scoring import Scores, SetScore
from core.search.search_records import PENALTY

LIMIT = Goal("constraint", safety_limit=0.5)
FRONT = Goal("pareto", reference=(2.0, 2.0))


def scores(safety: float, expert: float) -> Scores:
    return Scores(*(SetScore(loss, 0.0, torch.tensor([loss])) for loss in (safety, expert)))


def candidate(safety: float, expert: float, goal: Goal = LIMIT, failure: str = "") -> CandidateScored:
    losses = scores(safety, expert)
    return CandidateScored(
        search="evomm",
        candidate=0,
        generation=0,
        recipe={},
        objective=PENALTY if failure else goal.objective(losses, 0.3, True),
        ce_safety=None if failure else safety,
        ce_expert=None if failure else expert,
        seconds=0.0,
        failure=failure,
        violation=0.0 if failure else goal.violation(losses),
    )


def ranked(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=values.__getitem__)


def test_weighted_is_values_as_it_is() -> None:
    goal = Goal()
    generation = [candidate(1.0, 2.0, goal), candidate(0.1, 9.0, goal), candidate(0, 0, goal, "broken")]
    assert goal.optimizer_values(generation, []) == [1.0 + 0.3 * 2.0, 0.1 + 0.3 * 9.0, PENALTY]
    assert {c.violation for c in generation} == {0.0}


def test_feasible_candidates_come_first_by_skill_and_the_others_by_what_they_violate() -> None:
    generation = [
        candidate(0.9, 0.0),
        candidate(0.5, 3.0),
        candidate(0.0, 0.0, failure="not finite"),
        candidate(0.1, 7.0),
        candidate(0.6, 9.0),
    ]
    assert generation[1].violation == 0.0, "at the limit is within it"
    values = LIMIT.optimizer_values(generation, [])
    assert ranked(values) == [1, 3, 4, 0, 2]
    assert all(math.isfinite(value) for value in values) and values[2] == PENALTY
    assert [generation.index(c) for c in sorted(generation, key=lambda c: (bool(c.failure), c.rank_key))] == [
        1,
        3,
        4,
        0,
        2,
    ]


def test_where_none_is_feasible_the_least_violation_wins() -> None:
    generation = [candidate(0.9, 0.0), candidate(0.7, 5.0), candidate(0, 0, failure="x")]
    assert ranked(LIMIT.optimizer_values(generation, [])) == [1, 0, 2]
    assert LIMIT.optimizer_values([candidate(0, 0, failure="x")], []) == [PENALTY]


def test_values_near_the_limit_lie_near_each_other() -> None:
    """CMA-ES's own tests of convergence, and `stop_when_flat`, look at differences."""
    values = LIMIT.optimizer_values([candidate(0.5, 1.0), candidate(0.5 + 1e-6, 1.0)], [])
    assert 0 < values[1] - values[0] < 1e-5


def test_who_adds_more_to_the_front_is_values_a_lower_value() -> None:
    before = [candidate(1.0, 1.0, FRONT)]
    generation = [
        candidate(0.2, 1.2, FRONT),  # on the front, far out
        candidate(0.95, 1.05, FRONT),  # on the front, but crowded
        candidate(1.05, 1.05, FRONT),  # dominated, just
        candidate(1.8, 1.9, FRONT),  # dominated, by much
        candidate(0, 0, FRONT, "broken"),
    ]
    values = FRONT.optimizer_values(generation, before)
    assert ranked(values) == [0, 1, 2, 3, 4]
    assert values[1] < 0 < values[2] < values[3] < values[4] == PENALTY
    assert values[2] == pytest.approx(math.hypot(0.05, 0.05), rel=0.5)


def test_two_alike_on_the_front_add_nothing_without_each_other() -> None:
    twins = [candidate(0.5, 0.5, FRONT), candidate(0.5, 0.5, FRONT)]
    assert FRONT.optimizer_values(twins, []) == [0.0, 0.0]
    assert FRONT.optimizer_values(twins[:1], []) == [pytest.approx(-1.5 * 1.5)]


def test_points_beyond_the_reference_are_led_back() -> None:
    values = FRONT.optimizer_values([candidate(3.0, 0.5, FRONT), candidate(2.5, 0.5, FRONT)], [])
    assert values == [pytest.approx(1.0), pytest.approx(0.5)]


def test_the_pareto_objective_names_the_merge_by_alpha() -> None:
    assert candidate(1.0, 2.0, FRONT).objective == pytest.approx(1.6)
    assert candidate(1.0, 2.0, LIMIT).objective == 2.0


def test_goals_compare_with_the_parents() -> None:
    parents = [(0.2, 3.0), (2.5, 0.4), (math.nan, None)]
    assert goal_of("weighted", 0.1, []) == Goal()
    goal = goal_of("constraint", 0.1, parents)
    assert (goal.safety_limit, goal.reference) == (pytest.approx(0.3), (2.5, 3.0))
    with pytest.raises(MergeError) as caught:
        goal_of("pareto", 0.1, [(None, None), (1.0, math.nan)])
    assert caught.value.code == "no-finite-parent"


def test_terms_add_up_to_the_objective() -> None:
    assert loss_terms(0.5, 0.8, {}, 0.25, {}) == (0.5, 0.2)
    by_expert, counts = {"a": 0.4, "b": 1.2}, {"a": 0.25, "b": 0.75}
    assert loss_terms(0.5, 1.0, by_expert, 0.5, counts) == pytest.approx((0.5, 0.05, 0.45))
    assert loss_terms(None, 1.0, by_expert, 0.5, counts) == pytest.approx((0.1, 0.9)), "alone, the domain loss is whole"
    assert loss_terms(None, 1.0, {"a": 0.4}, 0.5, counts) == (1.0,), "an expert's loss is missing"
    assert loss_terms(None, None, {}, 0.5, {}) == ()
