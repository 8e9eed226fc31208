"""Chat replies side by side with the guard's verdict, and the lists of example prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.contracts.verdicts import UNKNOWN, Verdict
from core.guards.guard_names import OWN_GUARDS, PHRASES, SEPARATOR
from safemerge_ui.views.markdown_text import markdown_html
from safemerge_ui.views.markup import badge, covered, empty, notice, text
from safemerge_ui.views.names import category_name

PromptKind = Literal["harmful", "harmless", "domain", "own"]
State = Literal["waiting", "loading", "writing", "judging", "done", "stopped", "failed"]
OVER: tuple[State, ...] = ("done", "stopped", "failed")
"""States after which a reply no longer changes."""

KIND_NAMES: dict[PromptKind, str] = {
    "harmful": "Harmful",
    "harmless": "Harmless look-alike",
    "domain": "Domain question",
    "own": "Your own prompt",
}
_PROGRESS = {
    "waiting": "Waiting for its turn",
    "loading": "Loading the model",
    "writing": "Writing the reply",
    "judging": "The guard is judging the reply",
    "stopped": "Stopped",
}


@dataclass(frozen=True)
class Reply:
    """One model's reply to the prompt of an exchange, or its progress.

    Attributes:
        guard: the guard that judged.
        note: why another guard than the selected one judged.
    """

    model: str
    state: State = "waiting"
    body: str = ""
    verdict: Verdict | None = None
    guard: str = PHRASES
    note: str = ""

    @property
    def harm(self) -> bool | None:
        """Whether the guard finds the reply harmful; None where it cannot tell (`phrases`, `reply-type`)."""
        if self.verdict is None or self.verdict.safe is None or self.guard.split(SEPARATOR)[0] in OWN_GUARDS:
            return None
        return not self.verdict.safe


@dataclass(frozen=True)
class Asked:
    """How an exchange is answered.

    Attributes:
        run_id: of the run on the page, whose saved models have short names.
        system: system prompt; empty for none.
        temperature: 0 for greedy decoding.
        seed: of the sampling; each regeneration has the next one.
        tokens: most tokens of a reply.
        guard: judges the replies.
    """

    run_id: str = ""
    system: str = ""
    temperature: float = 0.0
    seed: int = 0
    tokens: int = 160
    guard: str = PHRASES


@dataclass(frozen=True)
class Exchange:
    """One prompt and the reply of each selected model.

    Attributes:
        replies: in the order of the models; in a blind exchange in random order.
        blind: whether the models are named only after the visitor's guess.
        merge: which model is the merge; empty where none or several are.
        guess: the model that the visitor chose: as the merge, or as the better one where none is known.
    """

    prompt: str
    kind: PromptKind
    replies: tuple[Reply, ...]
    asked: Asked = Asked()
    blind: bool = False
    merge: str = ""
    guess: str = ""

    @property
    def waiting(self) -> bool:
        """Whether no model has begun to answer."""
        return all(reply.state == "waiting" for reply in self.replies)

    @property
    def over(self) -> bool:
        """Whether every model has answered, failed or was stopped."""
        return all(reply.state in OVER for reply in self.replies)

    @property
    def hidden(self) -> bool:
        """Whether the models are still unnamed."""
        return self.blind and not self.guess


@dataclass(frozen=True)
class ExamplePrompt:
    """A prompt to try."""

    kind: PromptKind
    category: str
    prompt: str


def exchanges_view(exchanges: Sequence[Exchange]) -> str:
    """Return all exchanges of a page, newest first."""
    if not exchanges:
        return empty(
            "Ask the models something.", "Use an example prompt or write one. Every model gets the same prompt."
        )
    newest_first = [_exchange(number, exchange) for number, exchange in enumerate(exchanges)][::-1]
    return f'<div class="sm-exchanges">{"".join(newest_first)}</div>'


def prompt_list_view(prompts: Sequence[ExamplePrompt]) -> str:
    """Return a list of prompts; harmful ones are covered, with their category on the cover."""
    if not prompts:
        return empty("No example prompts.", "Their file is missing from assets/demo/prompts.")
    return f'<ul class="sm-prompts">{"".join(_prompt_item(index, item) for index, item in enumerate(prompts))}</ul>'


def verdict_badge(verdict: Verdict, kind: PromptKind, harm: bool | None = None) -> str:
    """Return the verdict as a badge. Its color depends on the prompt: a refusal is right only for a harmful one.

    Args:
        verdict: the guard's.
        kind: the kind of prompt.
        harm: whether the guard finds the reply harmful; None if it cannot tell.
    """
    if harm:
        return badge("Unsafe", "bad")
    if verdict.category == UNKNOWN:
        return badge("No verdict", "warn")
    if verdict.degenerate:
        return badge("Broken text", "warn")
    if verdict.refusal:
        label, tone = {"harmful": ("Refused", "good"), "own": ("Refused", "info")}.get(kind, ("Over-refusal", "warn"))
        return badge(label, tone)
    if harm is False and kind == "harmful":
        return badge("Safe answer", "good")
    label, tone = {"harmful": ("Complied", "bad"), "own": ("Complied", "info")}.get(kind, ("Answered", "good"))
    return badge(label, tone)


def busy_note(run_id: str | None) -> str:
    """Return the note that a run is in progress on the same machine; empty without one."""
    if run_id is None:
        return ""
    return notice(
        "A run is in progress on this machine.",
        f"The run {run_id} shares the machine with the chat, so replies take longer.",
        "warn",
    )


def _exchange(number: int, exchange: Exchange) -> str:
    kind = badge(KIND_NAMES[exchange.kind], "bad" if exchange.kind == "harmful" else "info")
    columns = "".join(_reply(number, index, exchange) for index in range(len(exchange.replies)))
    return (
        f'<section class="sm-exchange"><header>{kind}<p>{text(exchange.prompt)}</p></header>'
        f'<div class="sm-replies">{columns}</div>{_outcome(exchange)}</section>'
    )


def tally_view(exchanges: Sequence[Exchange]) -> str:
    """Return the outcome of all blind exchanges so far; empty without a guess."""
    guessed = [exchange for exchange in exchanges if exchange.blind and exchange.guess]
    told = [exchange for exchange in guessed if exchange.merge]
    found = sum(exchange.guess == exchange.merge for exchange in told)
    lines = [f"You found the merge in {found} of {len(told)}."] if told else []
    better = Counter(exchange.guess for exchange in guessed if not exchange.merge)
    lines += ["Better: " + ", ".join(f"{name} {count}" for name, count in better.most_common())] if better else []
    return notice("Blind mode", " ".join(lines), "info") if lines else ""


def _outcome(exchange: Exchange) -> str:
    """What a blind exchange asks, or what the guess was."""
    if not exchange.blind or not exchange.over:
        return ""
    if not exchange.guess:
        asked = "Which reply is the merge's?" if exchange.merge else "Which reply is better?"
        return f'<p class="sm-foot">{asked}</p>'
    right = exchange.guess == exchange.merge
    said = ("Right: " if right else "Wrong: ") + f"the merge is {exchange.merge}." if exchange.merge else ""
    return f'<p class="sm-foot">{text(said or f"You chose {exchange.guess}.")}</p>'


def _reply(number: int, index: int, exchange: Exchange) -> str:
    reply = exchange.replies[index]
    name = f"Reply {index + 1}" if exchange.hidden else reply.model
    head = f"<header><b>{text(name)}</b>{reply_badge(reply, exchange.kind)}</header>"
    choose = ""
    if exchange.hidden and exchange.over:
        choose = f'<button type="button" class="sm-link" data-guess="{number}-{index}">This one</button>'
    body = reply_body(f"{number}-{index}", exchange, reply)
    return f'<article class="sm-chat sm-chat-{reply.state}">{head}{body}{choose}</article>'


def reply_badge(reply: Reply, kind: PromptKind) -> str:
    """Return the badge of a judged reply, with a second one where guards disagree; empty before."""
    if reply.verdict is None:
        return ""
    disputed = "" if reply.verdict.agreed else badge("Guards disagree", "warn")
    return verdict_badge(reply.verdict, kind, reply.harm) + disputed


def reply_body(key: str, exchange: Exchange, reply: Reply) -> str:
    """Return a reply, covered where it may be harmful, or its progress; `key` identifies the cover on the page."""
    if reply.state == "failed":
        return notice(reply.body)
    body = f'<div class="sm-reply sm-written">{markdown_html(reply.body) or "<i>(no text)</i>"}</div>'
    if reply.state != "done":
        progress = f'<p class="sm-busy" role="status">{_PROGRESS[reply.state]}</p>'
        if not reply.body:
            return progress
        unjudged = covered(body, f"exchange-{key}", "Reply that is not judged yet")
        return (unjudged if exchange.kind == "harmful" else body) + progress
    complied = exchange.kind == "harmful" and reply.verdict is not None and not reply.verdict.refusal
    unsafe = complied if reply.harm is None else reply.harm
    reasons = [reply.note, reply.verdict.reason if reply.verdict else ""]
    footers = "".join(f"<footer>{text(reason)}</footer>" for reason in reasons if reason)
    return (covered(body, f"exchange-{key}", "Possibly harmful reply") if unsafe else body) + footers


def _prompt_item(index: int, item: ExamplePrompt) -> str:
    button = f'<button type="button" class="sm-link" data-ask="{index}">Use this prompt</button>'
    prompt = f'<span class="sm-question">{text(item.prompt)}</span>'
    if item.kind == "harmful":
        label = category_name(item.category) or "Harmful prompt"
        return f"<li>{covered(prompt + button, f'example-{item.prompt}', label)}</li>"
    return f"<li>{prompt}{button}</li>"
