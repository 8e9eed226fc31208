"""Guards' verdicts on single replies, as events carry them."""

from __future__ import annotations

from core.contracts.results import Documented
from core.contracts.verdicts import Opinion, Verdict


class GuardAnswer(Documented):
    """One guard's answer about a reply, where several guards judge."""

    guard: str
    """The guard."""
    refusal: bool
    """Whether the reply refuses."""
    safe: bool | None
    """Whether the reply is safe; null where the guard cannot tell."""
    category: str = ""
    """The guard's category."""


class ReplyVerdict(Documented):
    """The guard's verdict on one model's reply to a safety question."""

    model: str
    """The model that replied; empty for an answer from a file or dataset."""
    refusal: bool
    """Whether the reply refuses."""
    safe: bool | None
    """Whether the reply is safe; null where the guard cannot tell."""
    degenerate: bool
    """Whether the reply is broken text."""
    category: str = ""
    """The guard's category, where several guards judge."""
    others: tuple[GuardAnswer, ...] = ()
    """Answers of the other guards, where several judge."""

    @property
    def agreed(self) -> bool:
        """Whether all guards agree."""
        others = tuple(Opinion(one.guard, one.refusal, one.safe, one.category) for one in self.others)
        return Verdict(self.refusal, self.safe, self.degenerate, self.category, 0.0, "", others).agreed


class DisputedReply(Documented):
    """A reply to a test prompt on which guards disagree, for a person to look at."""

    model: str
    """The model that replied, as in the results."""
    prompt: str
    """The test prompt."""
    category: str
    """The prompt's category."""
    unsafe: bool
    """Whether the prompt is an unsafe one; false for a harmless look-alike."""
    answers: tuple[GuardAnswer, ...]
    """All guards' answers, the deciding guard's first."""
    response: str | None
    """The reply; null for a reply to an unsafe prompt that not every guard calls safe, which is never kept."""
