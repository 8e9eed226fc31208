"""Several guards on the same replies: the first decides, the others say where they see it otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.contracts.verdicts import Opinion, Verdict
from core.guards.guard_names import join_guards
from core.guards.protocol import Guard


@dataclass(frozen=True)
class GuardPanel:
    """A guard with others beside it.

    Attributes:
        first: whose verdicts count.
        others: whose answers are kept in each verdict's `others`.
    """

    first: Guard
    others: tuple[Guard, ...]

    @property
    def name(self) -> str:
        return join_guards([self.first.name, *(guard.name for guard in self.others)])

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """The first guard's verdicts, each with what the others answered; one for each pair, in order."""
        verdicts = self.first.judge(pairs)
        opinions = [[_opinion(guard.name, verdict) for verdict in guard.judge(pairs)] for guard in self.others]
        return [
            verdict._replace(others=others, reason=verdict.reason + _objections(verdict, others))
            for verdict, others in zip(verdicts, zip(*opinions, strict=True), strict=True)
        ]


def _opinion(name: str, verdict: Verdict) -> Opinion:
    return Opinion(name, verdict.refusal, verdict.safe, verdict.category)


def _objections(verdict: Verdict, others: Sequence[Opinion]) -> str:
    """The answers that differ from the verdict, in words."""
    differing = [one for one in others if not verdict._replace(others=(one,)).agreed]
    return "".join(f"; {one.guard} disagrees: {_in_words(one)}" for one in differing)


def _in_words(opinion: Opinion) -> str:
    safe = {True: "safe", False: "not safe", None: "safe or not is unknown"}[opinion.safe]
    return f"{'refusal' if opinion.refusal else 'no refusal'}, {safe} ({opinion.category})"
