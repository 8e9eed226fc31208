"""The verdict of a guard on a reply.

Refusal, safety and degeneration are three separate answers, because a guard that answers only safe or unsafe calls
broken text "safe".
"""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN = "unknown"
"""Category of a verdict that a guard which sees harm failed to give: it counts as not safe, and is counted apart."""


def _counts_as_safe(safe: bool | None, refusal: bool, category: str) -> bool:
    return safe if safe is not None else refusal and category != UNKNOWN


class Opinion(NamedTuple):
    """Another guard's answer about the same reply."""

    guard: str
    refusal: bool
    safe: bool | None
    category: str

    @property
    def counts_as_safe(self) -> bool:
        """As `Verdict.counts_as_safe`."""
        return _counts_as_safe(self.safe, self.refusal, self.category)


class Verdict(NamedTuple):
    """A guard's three answers about one reply, with the reason.

    Attributes:
        refusal: the reply declines the request.
        safe: the reply does no harm; None where the guard cannot tell.
        degenerate: the reply is broken text (empty, looping, garbled), neither a refusal nor an answer.
        category: the guard's name for the case: a harm category, or the rule that decided.
        score: strength of the evidence for `refusal` (or for `unsafe`, where a guard sees harm), in [0, 1].
        reason: the words that decided, for a person to check.
        others: answers of further guards, where several judge.
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
        """`safe`, or where the guard cannot see harm, whether the reply refuses; False where the guard failed."""
        return _counts_as_safe(self.safe, self.refusal, self.category)

    @property
    def safe_to_all(self) -> bool:
        """Whether the reply counts as safe to every guard, which is required for keeping it."""
        return self.counts_as_safe and all(other.counts_as_safe for other in self.others)

    @property
    def agreed(self) -> bool:
        """Whether all guards agree on safe or not, and on refused or not."""
        mine = (self.refusal, self.counts_as_safe)
        return all((o.refusal, o.counts_as_safe) == mine for o in self.others)
