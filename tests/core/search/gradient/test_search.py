"""Gradient search from start to end on tiny merges: it lowers the held-out loss, stops, and repeats itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from core.contracts.events import CandidateScored, Event, GradientStep, Warned
from core.contracts.run_spec import GenomeSpec
from core.errors import DataError, MergeError
from core.merging.recipes import Recipe
from core.search.bayes import Bayes
from core.search.evaluator import Evaluator
from core.search.gradient import backward
from core.search.gradient.descent import Descent
from core.search.gradient.pair_parts import divide_pairs, refuse_measured_prompts
from core.search.objectives import Goal
from core.search.registry import make_optimizer
from core.search.search_loop import run_search
from core.search.search_plan import SearchPlan
from tests.core.search.gradient.pools import (
    BENIGN,
    DOMAIN,
    SAFETY,
    SHARES,
    differentiator_of,
    genome_of,
    make_pool,
    scorer_of,
)

CELLS = GenomeSpec(layer_granularity=1, filters=("self_attn",))


def drained(events: Iterator[Event]) -> tuple[list[Event], Recipe | None]:
    seen: list[Event] = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def evaluator_of(pool: Any) -> Evaluator:
    return Evaluator(pool, scorer_of(pool), differentiator=differentiator_of(pool))


def plan_of(pool: Any, **changes: Any) -> SearchPlan:
    plan = SearchPlan(
        name="gradient",
        genome=genome_of(pool, "task_arithmetic", CELLS),
        steps=40,
        alpha=0.3,
        safety=True,
        seed=0,
        optimizer="gradient",
        beta=0.5,
    )
    return replace(plan, **changes)


def searched(pool: Any, evaluator: Evaluator | None = None, **changes: Any) -> tuple[list[Event], Recipe | None]:
    return drained(run_search(plan_of(pool, **changes), evaluator or evaluator_of(pool), lambda: False))


def candidates(events: list[Event]) -> list[CandidateScored]:
    return [event for event in events if isinstance(event, CandidateScored)]


def test_the_held_out_loss_falls_and_chooses() -> None:
    events, best = searched(make_pool())
    scored = candidates(events)
    held_out = [event.held_out or math.nan for event in scored]
    assert min(held_out) < 0.95 * held_out[0]
    chosen = min(scored, key=lambda event: event.rank_key)
    assert chosen.held_out == min(held_out)
    assert best == Recipe.model_validate(chosen.recipe)
    assert all(event.ce_benign is not None for event in scored)
    assert any(isinstance(event, GradientStep) and event.batch is not None for event in events)
    assert any(isinstance(event, GradientStep) and event.batch is None for event in events)


def test_a_second_run_is_the_same_and_a_cut_one_ends_the_same() -> None:
    whole, best = searched(make_pool())
    for cut in (2, len(whole) // 2, len(whole) - 3):
        pool = make_pool()
        evaluator = evaluator_of(pool)
        before = whole[:cut]
        evaluator.recall(
            [event for event in before if isinstance(event, CandidateScored)],
            steps=[event for event in before if isinstance(event, GradientStep)],
        )
        again, same = searched(pool, evaluator)
        assert same == best
        assert [(e.objective, e.held_out) for e in candidates(again)] == [
            (e.objective, e.held_out) for e in candidates(whole)
        ]


def test_the_budget_bounds_the_work() -> None:
    events, _ = searched(make_pool(), steps=4)
    assert len(candidates(events)) <= 4
    assert searched(make_pool(), steps=1)[1] is not None


def test_few_parameters_are_searched_by_bayesian_optimization() -> None:
    pool = make_pool()
    assert isinstance(make_optimizer(plan_of(pool, genome=genome_of(pool, "task_arithmetic"))), Bayes)
    assert isinstance(make_optimizer(plan_of(pool)), Descent)


def test_a_constraint_keeps_the_safety_loss() -> None:
    pool = make_pool()
    free = candidates(searched(pool)[0])
    limit = free[0].ce_safety or 0.0
    events, best = searched(make_pool(), goal=Goal("constraint", limit, (math.inf, math.inf)), beta=0.0)
    chosen = min(candidates(events), key=lambda event: event.rank_key)
    assert best == Recipe.model_validate(chosen.recipe)
    assert chosen.violation == 0
    assert (chosen.ce_expert or 0) < (free[0].ce_expert or 0)


def test_a_step_without_finite_derivatives_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = backward.Differentiator.differentiate, []

    def sometimes(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) % 3 == 1:
            raise MergeError("a derivative is not finite", code="derivative-not-finite")
        return original(self, *arguments)

    monkeypatch.setattr(backward.Differentiator, "differentiate", sometimes)
    events, best = searched(make_pool())
    assert best is not None
    assert any(isinstance(event, Warned) for event in events)
    held_out = [event.held_out or math.nan for event in candidates(events)]
    assert min(held_out) < held_out[0]


def test_a_run_without_a_differentiator_is_refused() -> None:
    pool = make_pool()
    with pytest.raises(MergeError) as caught:
        searched(pool, Evaluator(pool, scorer_of(pool)))
    assert caught.value.code == "no-derivatives"


def test_the_start_is_a_recipe_and_the_pull_holds_it() -> None:
    pool = make_pool()
    genome = genome_of(pool, "task_arithmetic", CELLS)
    start = Recipe(method="linear", base="base", experts=("a", "b"), weights=(0.4, 0.45, 0.15))
    events, _ = searched(pool, start=start)
    first = Recipe.model_validate(candidates(events)[0].recipe)
    assert all(scope.weights == pytest.approx((0.45, 0.15)) for scope in first.scopes)
    again = genome.point_of(first)
    assert genome.recipe(again) == first

    def distance(recipe: Recipe | None) -> float:
        assert recipe is not None
        return sum((weight - 1 / 3) ** 2 for scope in recipe.scopes for weight in scope.weights)

    assert distance(searched(make_pool(), regularize=100.0)[1]) < distance(searched(make_pool())[1])


def test_held_out_pairs_are_apart_and_of_every_kind() -> None:
    sets: dict[Any, Any] = {"safety": SAFETY * 2, "expert": DOMAIN, "benign": BENIGN}
    parts = divide_pairs(sets, SHARES, seed=0)
    questions = [{(pair.kind, pair.sample.question) for pair in side} for side in (parts.training, parts.held_out)]
    assert not questions[0] & questions[1]
    assert {pair.kind for pair in parts.held_out} == {"safety", "expert", "benign"}
    for side in (parts.training, parts.held_out):
        for kind in ("safety", "expert", "benign"):
            assert sum(pair.share for pair in side if pair.kind == kind) == pytest.approx(1.0)
    with pytest.raises(DataError) as caught:
        divide_pairs({"safety": SAFETY[:1], "expert": DOMAIN}, SHARES, seed=0)
    assert caught.value.code == "too-few-pairs-to-hold-out"
    with pytest.raises(DataError) as caught:
        refuse_measured_prompts(parts, [f"  {SAFETY[0].question.upper()}"])
    assert caught.value.code == "pair-is-measured"


def test_weights_at_their_bounds_move_inside() -> None:
    pool = make_pool()
    zero = Recipe(method="task_arithmetic", base="base", experts=("a", "b"), weights=(0.0, 1.5))
    events, _ = searched(pool, start=zero)
    assert min(event.held_out or math.inf for event in candidates(events)) < (candidates(events)[0].held_out or 0)
