"""Judges the same replies with several guards: the first decides, the others show where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.contracts.verdicts import Opinion, Verdict
from core.guards.guard_names import join_guards
from core.guards.protocol import Guard, Unloadable


@dataclass(frozen=True)
class GuardPanel:
    """A deciding guard and further guards.

    Attributes:
        first: the guard whose verdicts count.
        others: the guards whose answers are stored in each verdict's `others`.
    """

    first: Guard
    others: tuple[Guard, ...]

    @property
    def name(self) -> str:
        return join_guards([self.first.name, *(guard.name for guard in self.others)])

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """The first guard's verdicts with the answers of the others; one per pair, in order."""
        verdicts = self.first.judge(pairs)
        opinions = [[_opinion(guard.name, verdict) for verdict in guard.judge(pairs)] for guard in self.others]
        return [
            verdict._replace(others=others, reason=verdict.reason + _objections(verdict, others))
            for verdict, others in zip(verdicts, zip(*opinions, strict=True), strict=True)
        ]


def unload(guard: Guard) -> None:
    """Release the memory of a guard, or of all guards of a panel; judging loads them again."""
    from core.models.out_of_memory import free_cached

    for one in (guard.first, *guard.others) if isinstance(guard, GuardPanel) else (guard,):
        if isinstance(one, Unloadable):
            one.unload()
            free_cached()


def _opinion(name: str, verdict: Verdict) -> Opinion:
    return Opinion(name, verdict.refusal, verdict.safe, verdict.category)


def _objections(verdict: Verdict, others: Sequence[Opinion]) -> str:
    """Text of the answers that differ from the verdict."""
    differing = [one for one in others if not verdict._replace(others=(one,)).agreed]
    return "".join(f"; {one.guard} disagrees: {_opinion_text(one)}" for one in differing)


def _opinion_text(opinion: Opinion) -> str:
    safe = {True: "safe", False: "not safe", None: "safety unknown"}[opinion.safe]
    return f"{'refusal' if opinion.refusal else 'no refusal'}, {safe} ({opinion.category})"
