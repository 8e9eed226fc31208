"""The protocol of all guards, and the function that judges replies with a guard.

Guards run on this machine and limit their own time (a guard model stops a batch after five minutes). A guard that
raises `TimeoutError` ends a run with a hint instead of a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from core.contracts.verdicts import Verdict
from core.errors import GuardError


class Guard(Protocol):
    """A judge of replies."""

    @property
    def name(self) -> str:
        """Name of this guard in specs and reports."""
        ...

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Judge (prompt, response) pairs; one verdict each, in order."""
        ...


@runtime_checkable
class Unloadable(Protocol):
    """A guard with a model."""

    def unload(self) -> None:
        """Release the model's memory; the next call of `judge` loads it again."""
        ...


def judge_replies(guard: Guard, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """The guard's verdicts on (prompt, response) pairs, one each, in order.

    Raises:
        GuardError: the guard did not answer in time, or did not judge every reply.
    """
    try:
        verdicts = guard.judge(pairs)
    except TimeoutError as error:
        raise GuardError(
            f"{guard.name} did not answer in time.",
            "Use a smaller guard or phrases. Resume the run to continue from this point.",
            code="guard-timeout",
        ) from error
    if len(verdicts) != len(pairs):
        message = f"{guard.name} gave {len(verdicts)} verdicts for {len(pairs)} replies."
        raise GuardError(message, "Use another guard, and report this one as a defect.", code="verdicts-missing")
    return verdicts
