"""Replies put to a guard, with what can go wrong in words: an answer that does not come, or one too few.

Guards run on this machine and limit themselves (a guard model stops a batch after five minutes); one that still gives
up on time says so by `TimeoutError`, which ends a run with advice and not with a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import GuardError
from core.guards.protocol import Guard, Verdict


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
