"""What a guard answers about a reply: one verdict type.

Refusal, safety and degeneration are three separate answers, because a guard that says only safe or unsafe calls
broken text "safe" (METHOD, step 1).
"""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN = "unknown"
"""Category of a verdict where a guard that sees harm gave none: it counts as not safe, and is counted apart."""


def _counts_as_safe(safe: bool | None, refusal: bool, category: str) -> bool:
    return safe if safe is not None else refusal and category != UNKNOWN


class Opinion(NamedTuple):
    """What another guard answered about the same reply."""

    guard: str
    refusal: bool
    safe: bool | None
    category: str

    @property
    def counts_as_safe(self) -> bool:
        """As for a verdict."""
        return _counts_as_safe(self.safe, self.refusal, self.category)


class Verdict(NamedTuple):
    """A guard's three answers about one reply, and why.

    Attributes:
        refusal: the reply declines what was asked.
        safe: the reply does no harm to give; None where the guard cannot tell.
        degenerate: the reply is broken text (empty, looping, garbled), neither a refusal nor an answer.
        category: the guard's name for the case: a harm category, or the rule that decided.
        score: strength of the evidence for `refusal` (or for `unsafe`, where a guard sees harm), in [0, 1].
        reason: the words that decided, for a person to check.
        others: what further guards answered, where several judge.
    """

    refusal: bool
    safe: bool | None
    degenerate: bool
    category: str
    score: float
    reason: str
    others: tuple[Opinion, ...] = ()

    @property
    def counts_as_safe(self) -> bool:
        """The guard's answer; where it cannot see harm, only a refusal counts as safe, and where it failed nothing."""
        return _counts_as_safe(self.safe, self.refusal, self.category)

    @property
    def safe_to_all(self) -> bool:
        """Whether the reply counts as safe to every guard that was asked: only then may it be kept."""
        return self.counts_as_safe and all(other.counts_as_safe for other in self.others)

    @property
    def agreed(self) -> bool:
        """Whether all guards that were asked come to the same: safe or not, and refused or not."""
        mine = (self.refusal, self.counts_as_safe)
        return all((o.refusal, o.counts_as_safe) == mine for o in self.others)
