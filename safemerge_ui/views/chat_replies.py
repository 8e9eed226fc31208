"""Replies side by side with the guard's verdict, and the shelves of prepared prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.contracts.verdicts import UNKNOWN, Verdict
from core.guards.guard_names import PHRASES, SEPARATOR
from safemerge_ui.views.markup import badge, covered, empty, notice, text
from safemerge_ui.views.names import category_name

PromptKind = Literal["harmful", "harmless", "domain", "own"]
State = Literal["waiting", "loading", "writing", "judging", "done", "failed"]

KIND_NAMES: dict[PromptKind, str] = {
    "harmful": "Harmful",
    "harmless": "Harmless look-alike",
    "domain": "Domain question",
    "own": "Own prompt",
}
_BUSY = {
    "waiting": "Waits for its turn",
    "loading": "Loads the model",
    "writing": "Writes its reply",
    "judging": "The guard reads its reply",
}


@dataclass(frozen=True)
class Reply:
    """One model's answer to the prompt of an exchange, or where it stands.

    Attributes:
        guard: who judged.
        note: why it was not the guard that was chosen.
    """

    model: str
    state: State = "waiting"
    body: str = ""
    verdict: Verdict | None = None
    guard: str = PHRASES
    note: str = ""

    @property
    def harm(self) -> bool | None:
        """Whether the guard sees harm in the reply; None where it cannot tell, as `phrases` never can."""
        if self.verdict is None or self.verdict.safe is None or self.guard.split(SEPARATOR)[0] == PHRASES:
            return None
        return not self.verdict.safe


@dataclass(frozen=True)
class Exchange:
    """One prompt and what each chosen model made of it."""

    prompt: str
    kind: PromptKind
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class ShelfPrompt:
    """A prepared prompt of the shelves."""

    kind: PromptKind
    category: str
    prompt: str


def exchanges_view(exchanges: Sequence[Exchange]) -> str:
    """All exchanges of a page, newest first."""
    if not exchanges:
        return empty("Ask the models something.", "Take a prompt from a shelf, or write one: all models get the same.")
    newest_first = [_exchange(number, exchange) for number, exchange in enumerate(exchanges)][::-1]
    return f'<div class="sm-exchanges">{"".join(newest_first)}</div>'


def shelf_view(prompts: Sequence[ShelfPrompt]) -> str:
    """Prompts of one shelf; harmful ones are covered, with their category on the cover."""
    if not prompts:
        return empty("This shelf is empty.", "Its prompt file is not in assets/demo/prompts.")
    return f'<ul class="sm-shelf">{"".join(_shelf_item(index, item) for index, item in enumerate(prompts))}</ul>'


def verdict_badge(verdict: Verdict, kind: PromptKind, harm: bool | None = None) -> str:
    """The verdict in a word whose colour depends on what was asked: refusing is right only for harm.

    Args:
        verdict: the guard's.
        kind: what was asked.
        harm: whether the guard sees harm in the reply; None where it cannot tell.
    """
    if harm:
        return badge("Unsafe", "bad")
    if verdict.category == UNKNOWN:
        return badge("No verdict", "warn")
    if verdict.degenerate:
        return badge("Broken text", "warn")
    if verdict.refusal:
        word, tone = {"harmful": ("Refused", "good"), "own": ("Refused", "info")}.get(kind, ("Over-refusal", "warn"))
        return badge(word, tone)
    if harm is False and kind == "harmful":
        return badge("Safe answer", "good")
    word, tone = {"harmful": ("Complied", "bad"), "own": ("Complied", "info")}.get(kind, ("Answered", "good"))
    return badge(word, tone)


def busy_note(run_id: str | None) -> str:
    """What chat says while a run works on the same machine."""
    if run_id is None:
        return ""
    return notice(
        "A run is at work on this machine.",
        f"Chat and the run {run_id} share it: replies are slower until the run is over.",
        "warn",
    )


def _exchange(number: int, exchange: Exchange) -> str:
    kind = badge(KIND_NAMES[exchange.kind], "bad" if exchange.kind == "harmful" else "info")
    columns = "".join(_reply(f"{number}-{index}", exchange, reply) for index, reply in enumerate(exchange.replies))
    return (
        f'<section class="sm-exchange"><header>{kind}<p>{text(exchange.prompt)}</p></header>'
        f'<div class="sm-replies">{columns}</div></section>'
    )


def _reply(key: str, exchange: Exchange, reply: Reply) -> str:
    head = f"<header><b>{text(reply.model)}</b>{_verdict_badge(reply, exchange.kind)}</header>"
    return f'<article class="sm-chat sm-chat-{reply.state}">{head}{_body(key, exchange, reply)}</article>'


def _verdict_badge(reply: Reply, kind: PromptKind) -> str:
    if reply.verdict is None:
        return ""
    disputed = "" if reply.verdict.agreed else badge("Guards disagree", "warn")
    return verdict_badge(reply.verdict, kind, reply.harm) + disputed


def _body(key: str, exchange: Exchange, reply: Reply) -> str:
    if reply.state == "failed":
        return notice(reply.body)
    if reply.state != "done":
        return f'<p class="sm-busy" role="status">{_BUSY[reply.state]}</p>'
    body = f'<p class="sm-reply">{text(reply.body) or "<i>(no text)</i>"}</p>'
    complied = exchange.kind == "harmful" and reply.verdict is not None and not reply.verdict.refusal
    unsafe = complied if reply.harm is None else reply.harm
    reasons = [reply.note, reply.verdict.reason if reply.verdict else ""]
    why = "".join(f"<footer>{text(reason)}</footer>" for reason in reasons if reason)
    return (covered(body, f"exchange-{key}", "Possibly harmful reply") if unsafe else body) + why


def _shelf_item(index: int, item: ShelfPrompt) -> str:
    ask = f'<button type="button" class="sm-link" data-ask="{index}">Use this prompt</button>'
    words = f'<span class="sm-question">{text(item.prompt)}</span>'
    if item.kind == "harmful":
        label = category_name(item.category) or "Harmful prompt"
        return f"<li>{covered(words + ask, f'shelf-{item.prompt}', label)}</li>"
    return f"<li>{words}{ask}</li>"
