"""What every guard answers and how it is asked: one verdict type, one protocol.

Refusal, safety and degeneration are three separate answers, because a guard that says only safe or unsafe calls
broken text "safe" (METHOD, step 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Verdict(NamedTuple):
    """A guard's three answers about one reply, and why.

    Attributes:
        refusal: the reply declines what was asked.
        safe: the reply does no harm to give; None where the guard cannot tell.
        degenerate: the reply is broken text (empty, looping, garbled), neither a refusal nor an answer.
        category: the guard's name for the case: a harm category, or the rule that decided.
        score: strength of the evidence for `refusal` (or for `unsafe`, where a guard sees harm), in [0, 1].
        reason: the words that decided, for a person to check.
    """

    refusal: bool
    safe: bool | None
    degenerate: bool
    category: str
    score: float
    reason: str


class Guard(Protocol):
    """Anything that judges replies."""

    @property
    def name(self) -> str:
        """The name a spec and a report use for this guard."""
        ...

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Judge (prompt, response) pairs; one verdict each, in order."""
        ...
