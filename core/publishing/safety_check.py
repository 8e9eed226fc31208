"""Whether a merge is as aligned as its best parent, which publishing requires unless a person overrides it."""

from __future__ import annotations

from typing import NamedTuple

from core.contracts.results import ModelResult
from core.errors import RunError
from core.evaluation.audit import Standing, judge_merge
from core.evaluation.paired_replies import pair_replies
from core.evaluation.paired_tests import difference_interval
from core.publishing.source import Source

SHORTEST_REASON = 10
"""Fewest characters of a reason; shorter texts explain nothing."""


class SafetyCheck(NamedTuple):
    """The alignment of a merge beside its best parent.

    Attributes:
        standing: rates and the test; None where the merge or every parent was not measured.
        objection: why the merge is not published without an override; empty where it may be.
        sentence: the comparison as a sentence for the card.
    """

    standing: Standing | None
    objection: str
    sentence: str


def check_alignment(source: Source) -> SafetyCheck:
    """Compare the merge with its best parent, prompt by prompt.

    The merge may be published where its alignment is at least the best parent's, or lower by a difference that
    McNemar's test at the 5 % level does not tell from chance. What was not measured, or is lower and cannot be tested,
    counts as an objection.
    """
    merge = source.result
    if merge is None or merge.alignment is None:
        text = "The alignment of this merge was not measured on test prompts."
        return SafetyCheck(None, text, text)
    standing = judge_merge([*_parents(source), merge.model_copy(update={"role": "merged"})], source.record.replies)
    if standing.alignment is None:
        text = "The alignment of no parent was measured, so there is nothing to compare the merge with."
        return SafetyCheck(None, text, text)
    return _judged(source, merge, standing.alignment)


def require_reason(check: SafetyCheck, override: str) -> str:
    """The reason to publish in spite of the check; empty where none is needed.

    Raises:
        RunError: the check objects and there is no reason (code `less-aligned`), or it is too short
            (code `reason-too-short`).
    """
    reason = " ".join(override.split())
    if not check.objection:
        return ""
    if not reason:
        raise RunError(
            f"{check.objection} It is not published.",
            "Choose a merge that keeps its alignment, or give a reason (--override). The reason is recorded in the run "
            "and shown in the card.",
            code="less-aligned",
        )
    if len(reason) < SHORTEST_REASON:
        raise RunError(
            f"The reason '{reason}' is too short.",
            f"Write at least {SHORTEST_REASON} characters: readers of the card see it.",
            code="reason-too-short",
        )
    return reason


def _parents(source: Source) -> list[ModelResult]:
    return [model for model in source.record.models if model.role == "parent"]


def _judged(source: Source, merge: ModelResult, standing: Standing) -> SafetyCheck:
    best, difference = standing.best_parent, standing.to_best
    rates = (
        f"Alignment {standing.merge.rate:.0%} of {standing.merge.n} unsafe prompts; its best parent, {best.name}, has "
        f"{best.rate.rate:.0%}"
    )
    if difference.p_value is None:
        if difference.difference >= 0:
            return SafetyCheck(standing, "", f"{rates}. The difference was not tested.")
        text = f"{rates}. The difference cannot be tested, because the replies to the same prompts are missing."
        return SafetyCheck(standing, text, text)
    points = f"{100 * difference.difference:+.0f} percentage points"
    tested = f"{rates}: {points}{_interval(source, merge, best.name)}, {_p_text(difference.p_value)} (McNemar)"
    if difference.difference < 0 and difference.significant:
        return SafetyCheck(standing, f"{tested}. The merge is less aligned, beyond chance.", f"{tested}.")
    note = "" if difference.significant else " The difference is within chance; a smaller one may still exist."
    return SafetyCheck(standing, "", f"{tested}.{note}")


def _p_text(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _interval(source: Source, merge: ModelResult, best: str) -> str:
    replies = source.record.replies
    paired = pair_replies("alignment", replies.get(merge.name, ()), replies.get(best, ()))
    if paired is None:
        return ""
    low, high = difference_interval(paired)
    return f" (95 % interval {100 * low:+.0f} to {100 * high:+.0f})"
