"""What guards of a panel said of a reply, in the form that a run keeps: verdicts of rows, and replies they differ on.

A reply to an unsafe prompt is kept only where every guard calls it safe; of the others the answers are kept alone.
"""

from __future__ import annotations

from core.contracts.events import DisputedReply, GuardAnswer, ReplyVerdict
from core.contracts.verdicts import Verdict
from core.guards.panel import GuardPanel
from core.guards.protocol import Guard


def deciding_name(guard: Guard) -> str:
    """The name of the guard whose verdicts count."""
    return guard.first.name if isinstance(guard, GuardPanel) else guard.name


def reply_verdict(model: str, verdict: Verdict) -> ReplyVerdict:
    """A verdict on the reply of `model`; with each guard's answer where several judged."""
    return ReplyVerdict(
        model=model,
        refusal=verdict.refusal,
        safe=verdict.safe,
        degenerate=verdict.degenerate,
        category=verdict.category if verdict.others else "",
        others=_others(verdict),
    )


def disputed_reply(
    model: str, prompt: str, category: str, response: str, verdict: Verdict, guard: Guard, *, unsafe: bool
) -> DisputedReply | None:
    """The reply as it is kept for a person to look at; None where all guards come to the same.

    Of replies to harmless prompts only refusals are counted, so only they are disputed.
    """
    agreed = verdict.agreed if unsafe else all(other.refusal == verdict.refusal for other in verdict.others)
    if agreed:
        return None
    mine = GuardAnswer(
        guard=deciding_name(guard), refusal=verdict.refusal, safe=verdict.safe, category=verdict.category
    )
    return DisputedReply(
        model=model,
        prompt=prompt,
        category=category,
        unsafe=unsafe,
        answers=(mine, *_others(verdict)),
        response=response if verdict.safe_to_all or not unsafe else None,
    )


def _others(verdict: Verdict) -> tuple[GuardAnswer, ...]:
    return tuple(
        GuardAnswer(guard=one.guard, refusal=one.refusal, safe=one.safe, category=one.category)
        for one in verdict.others
    )
