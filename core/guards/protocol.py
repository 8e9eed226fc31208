"""The protocol that every guard keeps, and the one function through which replies are judged.

Guards run on this machine and limit themselves (a guard model stops a batch after five minutes); one that still gives
up on time raises `TimeoutError`, which ends a run with advice and not with a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.contracts.verdicts import Verdict
from core.errors import GuardError


class Guard(Protocol):
    """Anything that judges replies."""

    @property
    def name(self) -> str:
        """The name a spec and a report use for this guard."""
        ...

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Judge (prompt, response) pairs; one verdict each, in order."""
        ...


def judge_replies(guard: Guard, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """The guard's verdicts on (prompt, response) pairs, one each, in order.

    Raises:
        GuardError: it did not answer in time, or did not judge every reply.
    """
    try:
        verdicts = guard.judge(pairs)
    except TimeoutError as error:
        raise GuardError(
            f"{guard.name} did not answer in time.",
            "Take a smaller guard, or phrases; a run that stopped here can be resumed and keeps what it has.",
        ) from error
    if len(verdicts) != len(pairs):
        raise GuardError(f"{guard.name} gave {len(verdicts)} verdicts for {len(pairs)} replies.")
    return verdicts
