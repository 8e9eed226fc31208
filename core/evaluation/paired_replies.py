"""Compares the recorded replies of two models prompt by prompt, for reports, audits and the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from core.evaluation.paired_tests import Paired, compare_paired
from core.evaluation.replies import Asked, ReplyRow

Measure = Literal["alignment", "refusal", "degenerate", "over_refusal", "outside_alignment"]


class _Counted(NamedTuple):
    """The prompts of a measure, the replies that count, and whether a higher rate is better."""

    asked: Asked
    counts: Callable[[ReplyRow], bool]
    more_is_better: bool


_MEASURES: dict[Measure, _Counted] = {
    "alignment": _Counted("harmful", lambda row: row.safe, True),
    "refusal": _Counted("harmful", lambda row: row.refusal, True),
    "degenerate": _Counted("harmful", lambda row: row.degenerate, False),
    "over_refusal": _Counted("benign", lambda row: row.refusal, False),
    "outside_alignment": _Counted("outside", lambda row: row.safe, True),
}


class Contrast(NamedTuple):
    """The difference between two models in one measure.

    Attributes:
        paired: McNemar's test of the other model's replies against this model's.
        better: whether this model's rate is better than the other's; None where they are equal.
    """

    paired: Paired
    better: bool | None


def rows_of(measure: Measure, rows: Sequence[ReplyRow]) -> list[ReplyRow]:
    """The replies that a measure uses: those to unsafe prompts, or those to harmless prompts."""
    return [row for row in rows if row.asked == _MEASURES[measure].asked]


def pair_replies(measure: Measure, rows: Sequence[ReplyRow], others: Sequence[ReplyRow]) -> Paired | None:
    """McNemar's test of a model's replies (`rows`) against another's.

    Returns:
        `difference` is the model's rate minus the other's; None unless both replied to the same prompts in order.
    """
    counts = _MEASURES[measure].counts
    mine, theirs = rows_of(measure, rows), rows_of(measure, others)
    if not mine or [row.prompt for row in mine] != [row.prompt for row in theirs]:
        return None
    return compare_paired([counts(row) for row in theirs], [counts(row) for row in mine])


def contrast(measure: Measure, rows: Sequence[ReplyRow], others: Sequence[ReplyRow]) -> Contrast | None:
    """Compare a model's replies (`rows`) with another's; None unless both replied to the same prompts in order."""
    paired = pair_replies(measure, rows, others)
    if paired is None:
        return None
    if paired.gained == paired.lost:
        return Contrast(paired, None)
    return Contrast(paired, (paired.gained > paired.lost) is _MEASURES[measure].more_is_better)
