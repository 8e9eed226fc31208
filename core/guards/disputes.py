"""Converts verdicts of a panel to what a run records: verdicts of rows, and the replies on which guards disagree.

The text of a reply to an unsafe prompt is recorded only if every guard calls it safe; otherwise only the guards'
answers are recorded.
"""

from __future__ import annotations

from core.contracts.reply_verdicts import DisputedReply, GuardAnswer, ReplyVerdict
from core.contracts.verdicts import Verdict
from core.guards.panel import GuardPanel
from core.guards.protocol import Guard


def deciding_name(guard: Guard) -> str:
    """Name of the guard whose verdicts count."""
    return guard.first.name if isinstance(guard, GuardPanel) else guard.name


def reply_verdict(model: str, verdict: Verdict) -> ReplyVerdict:
    """The record of a verdict on a reply of `model`, with each guard's answer where several judged."""
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
    """The record of a reply for a person to decide; None where all guards agree.

    For replies to harmless prompts only refusals are counted, so guards can disagree on refusals only.
    """
    agreed = verdict.agreed if unsafe else all(other.refusal == verdict.refusal for other in verdict.others)
    if agreed:
        return None
    deciding = GuardAnswer(
        guard=deciding_name(guard), refusal=verdict.refusal, safe=verdict.safe, category=verdict.category
    )
    return DisputedReply(
        model=model,
        prompt=prompt,
        category=category,
        unsafe=unsafe,
        answers=(deciding, *_others(verdict)),
        response=response if verdict.safe_to_all or not unsafe else None,
    )


def _others(verdict: Verdict) -> tuple[GuardAnswer, ...]:
    return tuple(
        GuardAnswer(guard=one.guard, refusal=one.refusal, safe=one.safe, category=one.category)
        for one in verdict.others
    )
