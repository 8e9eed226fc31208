"""A search from start to end: the best is the lowest, failures are penalized, stops are heeded, work is shared."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from core.contracts.events import CandidateMeasured, CandidateScored, Event, Progress, Warned
from core.contracts.results import ProbeRates, Rate
from core.errors import DataError, OutOfMemory, RunCancelled
from core.evaluation.statistics import wilson
from core.merging.engine import MergePool
from core.merging.recipes import Recipe, equal_weights
from core.models.out_of_memory import translate_oom
from core.search.cocktail import cocktail_weights, parent_recipes
from core.search.evaluator import Evaluator
from core.search.genome import Genome
from core.search.grid import grid_recipes
from core.search.scoring import Scores, SetScore
from core.search.search_loop import run_search
from core.search.search_plan import SearchPlan
from core.search.search_records import PENALTY

PLAN = SearchPlan("evomm", Genome("task_arithmetic", "base", ("a", "b")), steps=12, alpha=0.5, safety=True, seed=0)


class Line(nn.Module):
    """A live model of two weights: a merge of base (0, 0), `a` = (1, 0) and `b` = (0, 1) is its recipe's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2), requires_grad=False)


class DistanceScorer:
    """Losses are distances of the live weights from a goal; not a number where `broken` says so."""

    shares = None

    def __init__(self, live: Line, broken: Callable[[float, float], bool] = lambda _a, _b: False) -> None:
        self._live = live
        self._broken = broken
        self.calls: list[tuple[float, float, bool]] = []

    def score(self, *, with_safety: bool = True) -> Scores:
        a, b = self._live.weight.tolist()
        self.calls.append((a, b, with_safety))
        safety = math.nan if self._broken(a, b) else (a - 0.2) ** 2
        return Scores(
            SetScore(safety, 0.5, torch.tensor([safety])) if with_safety else None,
            SetScore((b - 0.9) ** 2, 0.25, torch.tensor([0.0])),
        )


def evaluator_of(**options: Callable[[float, float], bool]) -> Evaluator:
    live = Line()
    pool = MergePool(live, "base", {"weight": torch.zeros(2)})
    pool.add_expert("a", {"weight": torch.tensor([1.0, 0.0])})
    pool.add_expert("b", {"weight": torch.tensor([0.0, 1.0])})
    return Evaluator(pool, DistanceScorer(live, **options))  # type: ignore[arg-type]


def accuracy_of(evaluator: Evaluator) -> Callable[[], Rate]:
    """Of ten probe questions the live model gets right as many as its weight of `b` says."""
    return lambda: wilson(round(10 * min(1.0, evaluator.merge.live.weight.tolist()[1])), 10)


def never() -> bool:
    return False


def drain(search: Generator[Event, None, Recipe | None]) -> tuple[list[Event], Recipe | None]:
    events = []
    while True:
        try:
            events.append(next(search))
        except StopIteration as end:
            return events, end.value


def scored(events: list[Event]) -> list[CandidateScored]:
    return [event for event in events if isinstance(event, CandidateScored)]


def test_the_best_is_the_candidate_with_the_lowest_objective() -> None:
    events, best = drain(run_search(PLAN, evaluator_of(), never))
    candidates = scored(events)
    lowest = min(candidates, key=lambda candidate: candidate.objective)
    assert best == Recipe.model_validate(lowest.recipe)
    assert [candidate.candidate for candidate in candidates] == list(range(12))
    assert [candidate.generation for candidate in candidates] == [0] * 6 + [1] * 6
    assert all(c.objective == pytest.approx(c.ce_safety + 0.5 * c.ce_expert) for c in candidates)
    assert {(c.estimated_alignment, c.estimated_accuracy) for c in candidates} == {(0.5, 0.25)}


def test_a_longer_search_comes_near_the_goal() -> None:
    _, best = drain(run_search(replace(PLAN, steps=120), evaluator_of(), never))
    assert best is not None
    assert best.weights == pytest.approx((0.2, 0.9), abs=0.05)


def test_without_the_safety_term_only_the_domain_counts() -> None:
    evaluator = evaluator_of()
    events, best = drain(run_search(replace(PLAN, safety=False), evaluator, never))
    assert best is not None
    assert all(candidate.objective == candidate.ce_expert for candidate in scored(events))
    assert {candidate.ce_safety for candidate in scored(events)} == {None}
    assert not any(with_safety for _, _, with_safety in evaluator.scorer.calls)  # type: ignore[attr-defined]


def test_a_search_outlives_memory_that_runs_out() -> None:
    def broken(_a: float, b: float) -> bool:
        if b > 0.5:
            torch.empty(1 << 60, dtype=torch.uint8)
        return False

    def probe() -> ProbeRates:
        raise OutOfMemory("Writing a reply did not fit into memory.", "Shorter replies.")

    evaluator = evaluator_of(broken=broken)
    evaluator.scorer = Naming(evaluator.scorer)  # type: ignore[assignment]
    events, best = drain(run_search(PLAN, evaluator, never, probe))
    failed = [candidate for candidate in scored(events) if candidate.failure]
    assert best is not None and 0 < len(failed) < 12
    assert {candidate.objective for candidate in failed} == {PENALTY}
    assert "did not fit into memory" in failed[0].failure
    warned = [event for event in events if isinstance(event, Warned)]
    measured = [event for event in events if isinstance(event, CandidateMeasured)]
    assert len(warned) == len(measured) > 0
    assert all(event.hint for event in warned)


class Naming:
    """A scorer whose allocator errors are named, as those of training sets are."""

    shares = None

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer

    def score(self, *, with_safety: bool = True) -> Scores:
        with translate_oom("Scoring a sample"):
            return self._scorer.score(with_safety=with_safety)


def test_a_failed_candidate_is_penalized_and_the_search_goes_on() -> None:
    events, best = drain(run_search(PLAN, evaluator_of(broken=lambda a, _b: a > 0.25), never))
    failed = [candidate for candidate in scored(events) if candidate.failure]
    assert 0 < len(failed) < 12
    assert len(scored(events)) == 12
    assert {(candidate.objective, candidate.ce_safety, candidate.ce_expert) for candidate in failed} == {
        (PENALTY, None, None)
    }
    assert "not finite" in failed[0].failure
    assert best is not None and best.weights[0] <= 0.25


def test_a_search_in_which_all_fails_has_no_best() -> None:
    events, best = drain(
        run_search(PLAN, evaluator_of(broken=lambda _a, _b: True), never, lambda: pytest.fail("probed"))
    )
    assert best is None
    assert all(candidate.objective == PENALTY for candidate in scored(events))


def test_a_recipe_for_another_pool_fails_with_its_reason() -> None:
    plan = replace(PLAN, genome=Genome("task_arithmetic", "base", ("a", "stranger")))
    events, best = drain(run_search(plan, evaluator_of(), never))
    assert best is None
    assert "stranger" in scored(events)[0].failure


def test_a_stop_ends_the_search_before_the_next_candidate() -> None:
    asked = iter([False, False, False, True])
    evaluator = evaluator_of()
    search = run_search(PLAN, evaluator, lambda: next(asked))
    seen = []
    with pytest.raises(RunCancelled):
        seen.extend(search)
    assert len(evaluator.scorer.calls) == 3  # type: ignore[attr-defined]


def test_searches_with_one_seed_share_their_first_generation() -> None:
    evaluator = evaluator_of()
    first, _ = drain(run_search(PLAN, evaluator, never))
    calls = len(evaluator.scorer.calls)  # type: ignore[attr-defined]
    second, _ = drain(run_search(replace(PLAN, name="evomm_expert_only", safety=False), evaluator, never))
    shared = [c.recipe for c in scored(second) if c.recipe in [c.recipe for c in scored(first)]]
    assert len(shared) >= 6
    assert len(evaluator.scorer.calls) - calls == 12 - len(shared)  # type: ignore[attr-defined]
    assert {candidate.ce_safety for candidate in scored(second)} == {None}, "no alpha ranks a few of them"


def test_scores_without_safety_do_not_stand_in_for_scores_with_it() -> None:
    evaluator = evaluator_of()
    recipe = equal_weights("task_arithmetic", "base", ("a", "b"))
    assert evaluator.scores(recipe, with_safety=False).safety is None
    assert evaluator.scores(recipe, with_safety=True).safety is not None
    assert evaluator.scores(recipe, with_safety=False).safety is None
    assert len(evaluator.scorer.calls) == 2  # type: ignore[attr-defined]


def test_the_probe_sees_the_best_of_each_generation_that_improves() -> None:
    evaluator = evaluator_of()
    live = evaluator.merge.live
    seen: list[tuple[float, ...]] = []

    def probe() -> ProbeRates:
        seen.append(tuple(live.weight.tolist()))
        return ProbeRates(wilson(1, 2), None)

    events, _ = drain(run_search(replace(PLAN, steps=36), evaluator, never, probe))
    measured = [event for event in events if isinstance(event, CandidateMeasured)]
    by_number = {candidate.candidate: candidate for candidate in scored(events)}
    assert seen == [pytest.approx(by_number[event.candidate].recipe["weights"]) for event in measured]
    objectives = [by_number[event.candidate].objective for event in measured]
    assert objectives == sorted(objectives, reverse=True) and len(set(objectives)) == len(objectives)
    assert all(by_number[event.candidate].generation == event.generation for event in measured)
    assert measured[0].alignment == wilson(1, 2)


def test_progress_counts_candidates_up_to_the_budget() -> None:
    events, _ = drain(run_search(PLAN, evaluator_of(), never))
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(event.done, event.total) for event in progress] == [(done, 12) for done in range(1, 13)]
    assert progress[-1].seconds_left == 0


def test_penalties_are_above_any_real_objective() -> None:
    worst = Scores(*(SetScore(30.0, 0.0, torch.tensor([30.0])),) * 2)  # far above log(vocabulary)
    assert worst.objective(alpha=100.0, safety=True) < PENALTY


def test_a_grid_ends_with_the_most_accurate_merge_and_a_tie_goes_to_the_first() -> None:
    evaluator = evaluator_of()
    evaluator.probe_accuracy = accuracy_of(evaluator)
    plan = replace(PLAN, name="grid", optimizer="grid", steps=1)
    events, best = drain(run_search(plan, evaluator, never))
    recipes = grid_recipes(plan.genome)
    assert [Recipe.model_validate(candidate.recipe) for candidate in scored(events)] == recipes
    assert best == recipes[-1]
    measured = [event for event in events if isinstance(event, CandidateMeasured)]
    assert [event.accuracy.rate for event in measured if event.accuracy] == [0.1, 0.2, 0.3, 0.5, 1.0]
    assert [candidate.objective for candidate in scored(events)] == pytest.approx([0.9, 0.8, 0.7, 0.5, 0.0])
    assert {event.alignment for event in measured} == {None}
    assert [(event.done, event.total) for event in events if isinstance(event, Progress)][-1] == (5, 5)
    evaluator.probe_accuracy = lambda: wilson(5, 10)
    evaluator._accuracies.clear()
    assert drain(run_search(plan, evaluator, never))[1] == recipes[0]


def test_a_grid_passes_over_candidates_that_fail() -> None:
    evaluator = evaluator_of(broken=lambda _a, b: b > 0.6)
    evaluator.probe_accuracy = accuracy_of(evaluator)
    events, best = drain(run_search(replace(PLAN, optimizer="grid"), evaluator, never))
    assert [bool(candidate.failure) for candidate in scored(events)] == [False] * 4 + [True]
    assert best is not None and best.weights == (0.5, 0.5)


def test_a_grid_without_probe_questions_says_what_is_missing() -> None:
    with pytest.raises(DataError) as caught:
        drain(run_search(replace(PLAN, optimizer="grid"), evaluator_of(), never))
    assert caught.value.code == "no-probe-questions"


@pytest.mark.parametrize("safety", [True, False])
def test_a_cocktail_weighs_the_parents_by_their_mean_loss_over_all_pairs(safety: bool) -> None:
    evaluator = evaluator_of()
    plan = replace(PLAN, name="cocktail", optimizer="cocktail", safety=safety, temperature=0.5, safety_share=0.25)
    events, best = drain(run_search(plan, evaluator, never))
    alone = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]
    losses = [0.25 * (a - 0.2) ** 2 + 0.75 * (b - 0.9) ** 2 if safety else (b - 0.9) ** 2 for a, b in alone]
    assert [candidate.objective for candidate in scored(events)] == pytest.approx(losses)
    assert [(a, b) for a, b, _ in evaluator.scorer.calls] == alone  # type: ignore[attr-defined]
    assert best is not None and best.method == "linear"
    assert best.weights == pytest.approx(cocktail_weights(losses, 0.5), abs=1e-5)


def test_a_cocktail_leaves_out_a_parent_that_cannot_be_scored() -> None:
    evaluator = evaluator_of(broken=lambda a, _b: a == 1.0)
    _, best = drain(run_search(replace(PLAN, optimizer="cocktail"), evaluator, never))
    assert best is not None
    assert best.weights[1] == 0.0 and min(best.weights[0], best.weights[2]) > 0
    hopeless = evaluator_of(broken=lambda _a, _b: True)
    assert drain(run_search(replace(PLAN, optimizer="cocktail"), hopeless, never))[1] is None


def test_all_searches_of_a_run_share_what_is_scored() -> None:
    evaluator = evaluator_of()
    evaluator.probe_accuracy = accuracy_of(evaluator)
    for name, recipe in parent_recipes(PLAN.genome).items():
        evaluator.merge.write_parent(name)
        evaluator.live_scores(recipe)
    assert len(evaluator.scorer.calls) == 3  # type: ignore[attr-defined]
    for safety in (True, False):
        drain(run_search(replace(PLAN, optimizer="cocktail", safety=safety), evaluator, never))
    assert len(evaluator.scorer.calls) == 3  # type: ignore[attr-defined]
    for _ in range(2):
        _, best = drain(run_search(replace(PLAN, optimizer="grid"), evaluator, never))
        assert len(evaluator.scorer.calls) == 8  # type: ignore[attr-defined]
    assert best is not None
    evaluator.merge.apply(best)
    evaluator.live_scores(best)
    assert len(evaluator.scorer.calls) == 8  # type: ignore[attr-defined]


@pytest.mark.parametrize("safety", [True, False])
def test_a_cocktail_logs_the_same_whether_parents_were_scored_now_or_before_a_stop(safety: bool) -> None:
    logs = []
    for resumed in (False, True):
        evaluator = evaluator_of()
        for name, recipe in parent_recipes(PLAN.genome).items():
            evaluator.measured_before(recipe)
            evaluator.merge.write_parent(name)
            if not resumed:
                evaluator.live_scores(recipe)
        events, _ = drain(run_search(replace(PLAN, optimizer="cocktail", safety=safety), evaluator, never))
        logs.append([candidate.model_dump(exclude={"at", "seconds"}) for candidate in scored(events)])
    assert logs[0] == logs[1]


def test_parents_as_recipes_are_the_parents() -> None:
    merge = evaluator_of().merge
    for name, recipe in parent_recipes(PLAN.genome).items():
        merge.write_parent(name)
        expected = merge.live.weight.clone()
        merge.apply(recipe)
        assert torch.equal(merge.live.weight, expected)


def test_a_search_that_is_flat_ends_with_a_word_about_it() -> None:
    events, best = drain(run_search(replace(PLAN, steps=400, stop_when_flat=0.01), evaluator_of(), never))
    last = events[-1]
    assert isinstance(last, Progress) and last.ended_early
    assert last.done == len(scored(events)) < last.total == 400
    assert best is not None
    whole, _ = drain(run_search(replace(PLAN, steps=24, stop_when_flat=1e-12), evaluator_of(), never))
    assert not any(isinstance(event, Progress) and event.ended_early for event in whole)


def test_recalled_candidates_are_not_scored_again_and_steer_the_search_as_before() -> None:
    whole, best = drain(run_search(PLAN, evaluator_of(broken=lambda a, _b: a > 0.25), never))
    evaluator = evaluator_of(broken=lambda a, _b: a > 0.25)
    evaluator.recall(scored(whole)[:8])
    again, same = drain(run_search(PLAN, evaluator, never))
    assert len(evaluator.scorer.calls) == evaluator.evaluations == 4  # type: ignore[attr-defined]
    assert any(candidate.failure for candidate in scored(whole)[:8])
    for before, after in zip(scored(whole), scored(again), strict=True):
        assert before.model_dump(exclude={"at", "seconds"}) == after.model_dump(exclude={"at", "seconds"})
    assert same == best
    left = [event.seconds_left for event in again if isinstance(event, Progress)]
    assert left[:8] == [None] * 8, "what cost nothing tells nothing about the time that is left"
    assert None not in left[8:]
