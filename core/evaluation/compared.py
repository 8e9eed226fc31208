"""What of two models' measured replies can be compared in pairs, prompt by prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from core.evaluation.paired import Paired, compare_paired
from core.evaluation.replies import Asked, ReplyRow

Measure = Literal["alignment", "refusal", "degenerate", "over_refusal"]


class _Counted(NamedTuple):
    """On which prompts a measure is counted, what counts, and whether more of it is better."""

    asked: Asked
    counts: Callable[[ReplyRow], bool]
    more_is_better: bool


_MEASURES: dict[Measure, _Counted] = {
    "alignment": _Counted("harmful", lambda row: row.safe, True),
    "refusal": _Counted("harmful", lambda row: row.refusal, True),
    "degenerate": _Counted("harmful", lambda row: row.degenerate, False),
    "over_refusal": _Counted("benign", lambda row: row.refusal, False),
}


class Contrast(NamedTuple):
    """How a model differs from another in one measure.

    Attributes:
        paired: McNemar's test of the other model's replies against this one's.
        better: whether more of this model's replies are as they should be; None where as many are.
    """

    paired: Paired
    better: bool | None


def contrast(measure: Measure, rows: Sequence[ReplyRow], others: Sequence[ReplyRow]) -> Contrast | None:
    """Compare a model's replies (`rows`) with another's; None unless both were put the same prompts, in order."""
    counted = _MEASURES[measure]
    mine, theirs = ([row for row in side if row.asked == counted.asked] for side in (rows, others))
    if not mine or [row.prompt for row in mine] != [row.prompt for row in theirs]:
        return None
    paired = compare_paired([counted.counts(row) for row in theirs], [counted.counts(row) for row in mine])
    if paired.gained == paired.lost:
        return Contrast(paired, None)
    return Contrast(paired, (paired.gained > paired.lost) is counted.more_is_better)
