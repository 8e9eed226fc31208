"""Where guards disagree: each guard's answer, for training pairs and for replies to test prompts."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.events import SampleSeen
from core.contracts.reply_verdicts import DisputedReply, GuardAnswer
from core.runs.view import RunView
from safemerge_ui.views.markup import badge, covered, text
from safemerge_ui.views.names import category_name, model_name

_SHOWN = 60


def dispute_lines(number: int, sample: SampleSeen) -> str:
    """Return each guard's answer about a training pair on which guards disagree, with buttons to keep or exclude it.

    Args:
        number: position of the pair in the log, which the buttons send.
        sample: any pair; the result is empty if the guards agree.
    """
    if not sample.disputed:
        return ""
    first = sample.guard.split(" & ")[0]
    items = ""
    for verdict in sample.verdicts:
        if not verdict.agreed:
            own = GuardAnswer(guard=first, refusal=verdict.refusal, safe=verdict.safe, category=verdict.category)
            model = verdict.model.rsplit("/", 1)[-1] or "the dataset's answer"
            items += f"<li><b>{text(model)}</b>: {_answers((own, *verdict.others))}</li>"
    return f'<ul class="sm-reasons">{items}</ul>{_buttons(number) if sample.answer else ""}'


def disputed_replies(view: RunView) -> str:
    """Return the replies to test prompts on which guards disagree; no decision is needed, as no run trains on them."""
    replies = view.disputed
    if not replies:
        return ""
    names = {model.name: model_name(model, view) for model in view.models}
    cards = "".join(_reply(number, reply, names[reply.model]) for number, reply in enumerate(replies[:_SHOWN]))
    more = f", of which the first {_SHOWN} are shown" if len(replies) > _SHOWN else ""
    return (
        f"<h3>Test replies on which guards disagree</h3><p>{len(replies)} replies{more}. All are in the run's "
        f'<span class="sm-mono">disputed.jsonl</span>.</p><div class="sm-cards" tabindex="0" role="region" '
        f'aria-label="Replies on which guards differ">{cards}</div>'
    )


def _reply(number: int, reply: DisputedReply, name: str) -> str:
    kind = badge("Unsafe prompt", "bad") if reply.unsafe else badge("Harmless look-alike", "info")
    category = f'<span class="sm-category">{text(category_name(reply.category))}</span>' if reply.category else ""
    prompt = f'<p class="sm-question">{text(reply.prompt)}</p>'
    if reply.unsafe:
        prompt = covered(prompt, f"disputed-{number}")
    shown = "The reply is not stored: not every guard called it safe." if reply.response is None else reply.response
    body = f'<p class="sm-reply">{text(shown)}</p>'
    if reply.unsafe and reply.response is not None and not all(answer.refusal for answer in reply.answers):
        body = covered(body, f"disputed-reply-{number}", "Reply to an unsafe prompt")
    return (
        f'<article class="sm-card"><header>{badge(name)}{kind}{category}</header>{prompt}'
        f"{body}<footer>{_answers(reply.answers)}</footer></article>"
    )


def _answers(answers: Sequence[GuardAnswer]) -> str:
    return "; ".join(f'<span class="sm-mono">{text(one.guard)}</span> {_answer(one)}' for one in answers)


def _answer(answer: GuardAnswer) -> str:
    safe = {True: "safe", False: "not safe", None: "safety unknown"}[answer.safe]
    return f"{'refusal' if answer.refusal else 'no refusal'}, {safe}"


def _buttons(number: int) -> str:
    return "".join(
        f'<button type="button" class="sm-link" data-decide="{number}" data-keep="{keep}">{label}</button> '
        for keep, label in ((1, "Keep this pair"), (0, "Exclude it"))
    )
