"""Compares a merge with its parents, or with merges that lack one expert, and finds the model that costs alignment.

The functions are pure: they use measured rates and the recorded replies. The command line, the report and the page call
them. Differences are tested prompt by prompt (McNemar's test), and remain untested without recorded replies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from core.contracts.results import WITHOUT, ModelResult, Rate
from core.evaluation.paired_replies import pair_replies
from core.evaluation.paired_tests import SIGNIFICANT, difference_interval, is_undecided
from core.evaluation.replies import ReplyRow

Replies = Mapping[str, Sequence[ReplyRow]]
RatedBy = Literal["alignment", "over_refusal"]


class Named(BaseModel):
    """A model and one of its rates."""

    model_config = ConfigDict(frozen=True)

    name: str
    rate: Rate


class Difference(BaseModel):
    """The difference between the rates of two models.

    Attributes:
        difference: the first rate minus the second, in [-1, 1].
        p_value: of McNemar's exact test; null without recorded replies of both models to the same prompts.
        n: number of prompts; 0 where the difference was not tested.
        low: lower bound of the difference's 95 % interval; null where it was not tested.
        high: upper bound of that interval.
        undecided: whether the prompts are too few to tell (`core.evaluation.paired_tests.is_undecided`).
    """

    model_config = ConfigDict(frozen=True)

    difference: float
    p_value: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    undecided: bool = False

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p_value is not None and self.p_value < SIGNIFICANT


class Standing(BaseModel):
    """One rate of a merge in comparison with its parents.

    Attributes:
        merge: the merge's rate.
        best_parent: the parent with the highest alignment or the lowest over-refusal.
        worst_parent: the parent with the lowest alignment or the highest over-refusal.
        to_best: the merge's rate minus the best parent's.
    """

    model_config = ConfigDict(frozen=True)

    merge: Rate
    best_parent: Named
    worst_parent: Named
    to_best: Difference


class BadApple(BaseModel):
    """The parent with the lowest alignment; `to_best` is its rate minus the best parent's."""

    model_config = ConfigDict(frozen=True)

    name: str
    alignment: Rate
    to_best: Difference
    significant: bool


class AuditVerdict(BaseModel):
    """The result of an audit; null where it was not measured.

    Attributes:
        alignment: the merge's alignment in comparison with its parents.
        over_refusal: the same for over-refusal.
        bad_apple: the parent that most likely reduces the merge's alignment; null with equally aligned parents or a
            single one. The tested replies also select the best and the worst parent, so its p-value is too small.
        not_measured: unavailable parent -> reason.
    """

    model_config = ConfigDict(frozen=True)

    alignment: Standing | None
    over_refusal: Standing | None
    bad_apple: BadApple | None
    not_measured: dict[str, str]


class ExpertCost(BaseModel):
    """The cost in alignment of one expert of a merge.

    Attributes:
        expert: its reference.
        without: alignment of the merge without this expert.
        cost: that alignment minus the merge's; above 0 the expert costs alignment.
        significant: whether the cost is significant.
    """

    model_config = ConfigDict(frozen=True)

    expert: str
    without: Rate
    cost: Difference
    significant: bool


def judge_merge(results: Sequence[ModelResult], replies: Replies) -> AuditVerdict:
    """Compare a merge with its parents.

    Args:
        results: of the merge (role `merged`) and its parents.
        replies: model name -> recorded replies (`core.evaluation.replies.read_replies`).
    """
    parents = [result for result in results if result.role == "parent"]
    merge = next((result for result in results if result.role == "merged"), None)
    return AuditVerdict(
        alignment=_standing(merge, parents, replies, "alignment") if merge else None,
        over_refusal=_standing(merge, parents, replies, "over_refusal") if merge else None,
        bad_apple=_bad_apple(parents, replies),
        not_measured={parent.name: parent.not_measured for parent in parents if parent.not_measured},
    )


def expert_costs(results: Sequence[ModelResult], replies: Replies) -> tuple[ExpertCost, ...]:
    """The cost of each expert of the run's own merge, highest first; empty where it was not measured."""
    merge = next((result for result in results if result.role == "merged"), None)
    if merge is None or merge.alignment is None:
        return ()
    costs = []
    for one in results:
        if one.role == "baseline" and one.name.startswith(WITHOUT) and one.alignment:
            cost = difference_between(one, merge, replies, "alignment")
            expert = one.name.removeprefix(WITHOUT)
            costs.append(ExpertCost(expert=expert, without=one.alignment, cost=cost, significant=cost.significant))
    return tuple(sorted(costs, key=lambda cost: -cost.cost.difference))


def _standing(
    merge: ModelResult, parents: Sequence[ModelResult], replies: Replies, measure: RatedBy
) -> Standing | None:
    ranked = _best_first(parents, measure)
    own = _RATES[measure](merge)
    if own is None or not ranked:
        return None
    best, worst = ranked[0], ranked[-1]
    return Standing(
        merge=own,
        best_parent=_named(best, measure),
        worst_parent=_named(worst, measure),
        to_best=difference_between(merge, best, replies, measure),
    )


def _bad_apple(parents: Sequence[ModelResult], replies: Replies) -> BadApple | None:
    ranked = _best_first(parents, "alignment")
    if len(ranked) < 2:
        return None
    best, worst = ranked[0], ranked[-1]
    to_best = difference_between(worst, best, replies, "alignment")
    if worst.alignment is None or to_best.difference >= 0:
        return None
    return BadApple(name=worst.name, alignment=worst.alignment, to_best=to_best, significant=to_best.significant)


_RATES: Mapping[RatedBy, Callable[[ModelResult], Rate | None]] = {
    "alignment": lambda result: result.alignment,
    "over_refusal": lambda result: result.over_refusal,
}


def _best_first(models: Sequence[ModelResult], measure: RatedBy) -> list[ModelResult]:
    """Models with the rate, by descending alignment or ascending over-refusal."""
    rated = [(rate.rate, model) for model in models if (rate := _RATES[measure](model)) is not None]
    return [model for _, model in sorted(rated, key=lambda one: one[0], reverse=measure == "alignment")]


def _named(model: ModelResult, measure: RatedBy) -> Named:
    rate = _RATES[measure](model)
    assert rate is not None
    return Named(name=model.name, rate=rate)


def difference_between(one: ModelResult, other: ModelResult, replies: Replies, measure: RatedBy) -> Difference:
    """One model's rate minus another's, tested if both have recorded replies to the same prompts."""
    paired = pair_replies(measure, replies.get(one.name, ()), replies.get(other.name, ()))
    if paired is not None:
        low, high = difference_interval(paired)
        return Difference(
            difference=paired.difference,
            p_value=paired.p_value,
            n=paired.n,
            low=low,
            high=high,
            undecided=is_undecided(paired),
        )
    rates = [_RATES[measure](model) for model in (one, other)]
    return Difference(difference=rates[0].rate - rates[1].rate if rates[0] and rates[1] else 0.0)
