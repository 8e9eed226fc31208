"""Racing: clear losers are dropped early and ranked behind the best, and the best is chosen on all pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from core.contracts.events import CandidateMeasured, CandidateScored, Progress
from core.contracts.results import ProbeRates
from core.evaluation.statistics import wilson
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.search.evaluator import Evaluator
from core.search.expert_losses import ExpertShares
from core.search.nested_subsets import NestedScorer
from core.search.objectives import Goal
from core.search.racing import FINALISTS, NEGLIGIBLE, paired_difference, total
from core.search.scoring import SetScore
from core.search.search_loop import run_search
from core.search.search_records import PENALTY
from tests.core.search.test_search_loop import PLAN, Line, drain, never, scored

SIZE = 64
SIZES = (8, 16, 32, 64)
RACED = replace(PLAN, steps=48, racing=True)


class NoisyPairs:
    """A nested set whose losses are distances of a live weight from each pair's own goal."""

    def __init__(self, axis: int, goal: float, broken: Callable[[float, int], bool]) -> None:
        self._axis = axis
        self._broken = broken
        self._goals = goal + 0.3 * torch.randn(SIZE, generator=torch.Generator().manual_seed(axis))
        self.size, self.tokens = SIZE, 10 * SIZE
        self.order, self.sizes = tuple(range(SIZE)), SIZES
        self.read: Counter[int] = Counter()

    def keep_lower_blocks(self, model: Any, blocks: int) -> None: ...

    def part_tokens(self, stage: int) -> int:
        return 10 * (SIZES[stage] - (SIZES[stage - 1] if stage else 0))

    def score_part(self, model: Line, stage: int) -> SetScore:
        self.read[stage] += 1
        weight = float(model.weight[self._axis])
        goals = self._goals[SIZES[stage - 1] if stage else 0 : SIZES[stage]]
        losses = (weight - goals) ** 2
        if self._broken(weight, stage):
            losses[0] = math.nan
        return SetScore(float(losses.mean()), 0.5, losses, self.part_tokens(stage))

    def joined(self, parts: list[SetScore]) -> SetScore:
        losses = torch.cat([part.per_sample for part in parts])
        return SetScore(float(losses.double().mean()), 0.5, losses, sum(part.tokens for part in parts))

    def score(self, model: Line) -> SetScore:
        return self.joined([self.score_part(model, stage) for stage in range(4)])


def racing_evaluator(
    broken: Callable[[float, int], bool] = lambda _w, _s: False, shares: ExpertShares | None = None
) -> Evaluator:
    live = Line()
    pool = MergePool(live, "base", {"weight": torch.zeros(2)})
    pool.add_expert("a", {"weight": torch.tensor([1.0, 0.0])})
    pool.add_expert("b", {"weight": torch.tensor([0.0, 1.0])})
    sets = NoisyPairs(0, 0.2, broken), NoisyPairs(1, 0.9, broken)
    return Evaluator(pool, NestedScorer(live, *sets, shares=shares))  # type: ignore[arg-type]


def whole_losses(recipe: dict[str, Any]) -> tuple[float, float]:
    """Losses on all pairs, apart from any race."""
    evaluator = racing_evaluator()
    evaluator.merge.apply(Recipe.model_validate(recipe))
    scores = evaluator.scorer.score()
    assert scores.safety and scores.expert
    return scores.safety.loss, scores.expert.loss


def test_bounds_of_paired_differences() -> None:
    ours, theirs = torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([0.0, 1.5, 2.0, 4.5])
    difference = paired_difference(ours, theirs, whole=10_000_000)
    spread = torch.tensor([1.0, 0.5, 1.0, 1.5]).double()
    assert difference.mean == pytest.approx(1.0)
    assert difference.variance == pytest.approx(float(spread.var()) / 4, rel=1e-6)
    assert difference.lower_bound == pytest.approx(1.0 - 2.353363 * math.sqrt(difference.variance), rel=1e-6)
    assert paired_difference(ours, theirs, whole=8).variance == pytest.approx(difference.variance / 2, rel=1e-6)
    assert paired_difference(ours, theirs, whole=4).lower_bound == pytest.approx(1.0), "all pairs leave no doubt"
    assert paired_difference(ours[:1], theirs[:1], whole=4).lower_bound == -math.inf


def test_a_sum_of_differences_has_welchs_degrees_of_freedom() -> None:
    one = paired_difference(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3), 10**9)
    two = paired_difference(torch.tensor([1.0, 1.5, 0.5, 1.0, 1.0]), torch.zeros(5), 10**9)
    both = total([(1.0, one), (0.5, two)])
    assert both.mean == pytest.approx(2.5)
    assert both.variance == pytest.approx(one.variance + two.variance / 4)
    terms = one.variance**2 / 2 + (two.variance / 4) ** 2 / 4
    assert both.freedom == pytest.approx(both.variance**2 / terms)
    assert total([(1.0, one), (0.0, two)]) == one
    alone = paired_difference(torch.ones(1), torch.zeros(1), 9)
    assert total([(1.0, one), (1.0, alone)]).lower_bound == -math.inf


def test_a_race_reads_less_and_ends_where_the_whole_search_ends() -> None:
    evaluator = racing_evaluator()
    events, best = drain(run_search(RACED, evaluator, never))
    candidates = scored(events)
    plain, best_of_all = drain(run_search(replace(PLAN, steps=48), racing_evaluator(), never))
    read, all_read = (sum(c.tokens for c in some) for some in (candidates, scored(plain)))
    assert all_read == 48 * 1280
    assert read < all_read / 2
    assert read == sum(10 * SIZES[0] * part.read[0] for part in sets_of(evaluator)) + sum(
        part.part_tokens(stage) * part.read[stage] for part in sets_of(evaluator) for stage in (1, 2, 3)
    )
    assert best is not None and best_of_all is not None
    ours, theirs = ((s + 0.5 * e) for s, e in map(whole_losses, (best.model_dump(), best_of_all.model_dump())))
    assert ours == pytest.approx(theirs, rel=0.02)
    assert [event.tokens_scored for event in events if isinstance(event, Progress)][-1] == read


def test_others_are_scored_on_all_pairs_though_there_are_subsets() -> None:
    for optimizer in ("evomm_surrogate", "bayes"):
        events, _ = drain(run_search(replace(RACED, steps=8, optimizer=optimizer), racing_evaluator(), never))
        assert not any(candidate.partial for candidate in scored(events))
        assert {candidate.tokens for candidate in scored(events)} <= {1280, 0}, "0: the same recipe once more"


def sets_of(evaluator: Evaluator) -> tuple[Any, Any]:
    return evaluator.scorer.safety, evaluator.scorer.expert


def test_the_log_says_on_how_many_pairs_figures_rest_and_dropped_ones_are_not_better() -> None:
    events, best = drain(run_search(RACED, racing_evaluator(), never))
    lowest = math.inf
    for candidate in scored(events):
        assert candidate.all_samples == 128 and candidate.samples in (16, 32, 64, 128)
        assert candidate.objective == pytest.approx(candidate.ce_safety + 0.5 * candidate.ce_expert)
        safety, expert = whole_losses(candidate.recipe)
        if candidate.partial:
            assert candidate.objective > (1 - NEGLIGIBLE) * lowest
        else:
            assert (candidate.ce_safety, candidate.ce_expert) == pytest.approx((safety, expert), rel=1e-6)
            lowest = min(lowest, candidate.objective)
    assert best is not None
    winner = min((c for c in scored(events) if not c.partial), key=lambda c: c.rank_key)
    assert Recipe.model_validate(winner.recipe) == best


def test_estimates_are_near_the_losses_on_all_pairs() -> None:
    events, _ = drain(run_search(RACED, racing_evaluator(), never))
    dropped = [candidate for candidate in scored(events) if candidate.partial]
    assert len(dropped) > 10
    errors = [sum(whole_losses(c.recipe)) - (c.ce_safety or 0.0) - (c.ce_expert or 0.0) for c in dropped]
    spread = [(c.ce_safety or 0.0) + (c.ce_expert or 0.0) for c in dropped]
    assert abs(sum(errors)) / len(errors) < 0.1 * (max(spread) - min(spread)), "no side is favoured"
    assert sum(map(abs, errors)) / len(errors) < 0.25 * (max(spread) - min(spread))


def test_the_nearest_dropped_ones_are_scored_on_all_pairs_at_the_end() -> None:
    events, _ = drain(run_search(RACED, racing_evaluator(), never))
    candidates = scored(events)
    searched, finals = candidates[:48], candidates[48:]
    nearest = sorted((c for c in searched if c.partial), key=lambda c: c.objective)[:FINALISTS]
    assert [c.recipe for c in finals] == [c.recipe for c in nearest]
    assert [c.candidate for c in finals] == [48, 49, 50] and not any(c.partial for c in finals)
    earlier = [next(c for c in nearest if c.recipe == final.recipe) for final in finals]
    assert [c.tokens + e.tokens for c, e in zip(finals, earlier, strict=True)] == [1280] * 3


def test_the_probe_sees_candidates_scored_on_all_pairs_only() -> None:
    events, _ = drain(run_search(RACED, racing_evaluator(), never, lambda: ProbeRates(wilson(1, 2), None)))
    by_number = {candidate.candidate: candidate for candidate in scored(events)}
    measured = [event for event in events if isinstance(event, CandidateMeasured)]
    assert measured and not any(by_number[event.candidate].partial for event in measured)


def test_the_same_best_after_a_stop_and_no_more_than_the_best_is_scored_again() -> None:
    whole, best = drain(run_search(RACED, racing_evaluator(), never))
    for cut in (1, 7, 20, 48, 50):
        evaluator = racing_evaluator()
        evaluator.recall(scored(whole)[:cut])
        again, same = drain(run_search(RACED, evaluator, never))
        assert same == best
        for before, after in zip(scored(whole), scored(again), strict=True):
            assert before.model_dump(exclude={"at", "seconds"}) == after.model_dump(exclude={"at", "seconds"})
        nominal = sum(c.tokens for c in scored(whole)[cut:])
        read = sum(part.part_tokens(s) * n for part in sets_of(evaluator) for s, n in part.read.items())
        assert read <= nominal + 1280 + (1280 * FINALISTS if cut >= 20 else 1280)


def test_a_search_on_domain_data_shares_what_was_read() -> None:
    evaluator = racing_evaluator()
    both, _ = drain(run_search(RACED, evaluator, never))
    alone, best = drain(run_search(replace(RACED, name="evomm_expert_only", safety=False), evaluator, never))
    assert scored(alone)[0].recipe == scored(both)[0].recipe
    assert scored(alone)[0].tokens == 0
    assert {c.ce_safety for c in scored(alone)} == {None} and best is not None
    resumed = racing_evaluator()
    resumed.recall([*scored(both), *scored(alone)[:3]])
    again, same = drain(run_search(replace(RACED, name="evomm_expert_only", safety=False), resumed, never))
    assert same == best and [c.tokens for c in scored(again)] == [c.tokens for c in scored(alone)]


def test_a_candidate_that_breaks_on_the_way_gets_the_penalty_and_cannot_lead() -> None:
    evaluator = racing_evaluator(broken=lambda weight, stage: weight > 0.6 and stage >= 1)
    events, best = drain(run_search(RACED, evaluator, never))
    failed = [candidate for candidate in scored(events) if candidate.failure]
    assert failed and {c.objective for c in failed} == {PENALTY}
    assert all("not finite" in c.failure and c.samples is None for c in failed)
    assert best is not None and max(best.weights) <= 0.6


@pytest.mark.parametrize(("racing", "safety"), [(True, True), (False, False)])
def test_what_failed_is_not_tried_again_by_another_search(racing: bool, safety: bool) -> None:
    first = replace(RACED, steps=12, racing=racing, safety=safety)
    second = replace(first, name="second", safety=not safety)

    def searched(before: list[CandidateScored]) -> list[CandidateScored]:
        evaluator = racing_evaluator(broken=lambda weight, stage: weight > 0.3 and stage >= 1)
        evaluator.recall(before)
        return [event for plan in (first, second) for event in scored(drain(run_search(plan, evaluator, never))[0])]

    whole = searched([])
    count = sum(candidate.search == "evomm" for candidate in whole)
    failed = {candidate.candidate for candidate in whole[:6] if candidate.failure}
    assert failed and all(whole[count + number].failure for number in failed), "the first generations are the same"
    assert {whole[count + number].tokens for number in failed} == {0}
    for cut in (3, count):
        for before, after in zip(whole, searched(whole[:cut]), strict=True):
            assert before.model_dump(exclude={"at", "seconds"}) == after.model_dump(exclude={"at", "seconds"})


@pytest.mark.parametrize("limit", [0.12, 0.0])
def test_constraints_are_raced_too(limit: float) -> None:
    plan = replace(RACED, goal=Goal("constraint", safety_limit=limit))
    events, best = drain(run_search(plan, racing_evaluator(), never))
    dropped = [candidate for candidate in scored(events) if candidate.partial]
    assert dropped and best is not None
    winner = min((c for c in scored(events) if not c.partial), key=lambda c: c.rank_key)
    assert Recipe.model_validate(winner.recipe) == best
    assert (winner.violation == 0) == (limit > 0)
    assert all(c.violation > 0 or c.objective > (1 - NEGLIGIBLE) * winner.objective for c in dropped)


def test_weights_of_experts_and_their_own_losses_are_raced_too() -> None:
    owners = tuple("one" if i % 2 else "two" for i in range(SIZE))
    shares = ExpertShares(owners, {"one": 0.9, "two": 0.1})
    events, best = drain(run_search(RACED, racing_evaluator(shares=shares), never))
    assert best is not None
    for candidate in scored(events):
        assert set(candidate.expert_losses) == {"one", "two"}
        mixed = 0.9 * candidate.expert_losses["one"] + 0.1 * candidate.expert_losses["two"]
        assert candidate.ce_expert == pytest.approx(mixed, abs=1e-6)


def test_without_racing_a_nested_scorer_scores_all_pairs() -> None:
    events, _ = drain(run_search(replace(RACED, racing=False, steps=6), racing_evaluator(), never))
    assert [(c.samples, c.partial, c.tokens) for c in scored(events)] == [(None, False, 1280)] * 6
