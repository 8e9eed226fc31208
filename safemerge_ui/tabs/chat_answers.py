"""Answers the prompts of the Chat tab: one model after another writes piece by piece, then the guard judges."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.errors import GuardError, ModelError, SafeMergeError
from core.guards.guard_names import PHRASES
from safemerge_ui.app_context import AppContext
from safemerge_ui.tabs.chat_models import model_choices, resolve_model
from safemerge_ui.views.chat_replies import Exchange

if TYPE_CHECKING:
    from core.models.chat_format import Conversation

SHOW_S = 0.15
"""Least seconds between two pieces that are sent to the page."""


def next_waiting(history: Sequence[Exchange]) -> int | None:
    """Return the place of the first exchange that no model has begun to answer."""
    return next((index for index, exchange in enumerate(history) if exchange.waiting), None)


def answer(context: AppContext, history: list[Exchange], index: int) -> Iterator[None]:
    """Answer one exchange of `history`, and yield each time that something in it has changed.

    The list is that of one visitor's page. An exchange that is stopped or removed meanwhile is left as it is.

    Args:
        context: models and guards.
        history: all exchanges; the ones before `index` are the conversation so far.
        index: place of the exchange.
    """
    mine = history[index]
    for exchange in answers(context, mine, history[:index]):
        if index >= len(history) or history[index] is not mine:
            return
        history[index] = mine = exchange
        yield


def answers(context: AppContext, exchange: Exchange, earlier: Sequence[Exchange]) -> Iterator[Exchange]:
    """Yield the exchange each time that something in it changes."""
    run_id = exchange.asked.run_id
    choices = model_choices(context, context.watch.look(run_id) if run_id else None)
    for index, reply in enumerate(exchange.replies):
        try:
            ref = resolve_model(reply.model, choices, context)
            exchange = with_reply(exchange, index, state="writing" if context.model_cache.holds(ref) else "loading")
            yield exchange
            for written in _written(context, ref, exchange, earlier, reply.model):
                exchange = with_reply(exchange, index, state="writing", body=written)
                yield exchange
            body, guard = exchange.replies[index].body, exchange.asked.guard
            if guard != PHRASES:
                exchange = with_reply(exchange, index, state="judging")
                yield exchange
            exchange = with_reply(exchange, index, state="done", body=body, **_judge(context, guard, exchange, body))
        except SafeMergeError as error:
            exchange = with_reply(exchange, index, state="failed", body=str(error))
        yield exchange


def conversation_of(model: str, exchange: Exchange, earlier: Sequence[Exchange]) -> Conversation:
    """Return the messages that a model gets: system prompt, the earlier prompts that it answered, and the new one."""
    turns = [{"role": "system", "content": exchange.asked.system}] if exchange.asked.system else []
    for one in earlier:
        for reply in one.replies:
            if reply.model == model and reply.state in ("done", "stopped") and reply.body:
                turns.append({"role": "user", "content": one.prompt})
                turns.append({"role": "assistant", "content": reply.body})
    return [*turns, {"role": "user", "content": exchange.prompt}]


def with_reply(exchange: Exchange, index: int, **changes: Any) -> Exchange:
    """Return the exchange with one reply changed."""
    replies = list(exchange.replies)
    replies[index] = replace(replies[index], **changes)
    return replace(exchange, replies=tuple(replies))


def _written(
    context: AppContext, ref: Any, exchange: Exchange, earlier: Sequence[Exchange], model: str
) -> Iterator[str]:
    """Yield the reply so far, at most every `SHOW_S` seconds, and at the end the whole reply."""
    from core.models.streaming import Decoding

    asked = exchange.asked
    decoding = Decoding(asked.tokens, asked.temperature, asked.seed)
    shown, written, sent = "", "", time.monotonic()
    for written in context.model_cache.stream(ref, conversation_of(model, exchange, earlier), decoding):
        if time.monotonic() - sent >= SHOW_S or not shown:
            shown, sent = written, time.monotonic()
            yield written
    if written != shown:
        yield written


def _judge(context: AppContext, guard: str, exchange: Exchange, body: str) -> dict[str, Any]:
    """Return the selected guard's verdict, or that of `phrases` with a note if the guard is unavailable."""
    busy = context.watch.busy_run() if guard != PHRASES else None
    note = f"{guard} is unavailable while the run {busy} is in progress." if busy else ""
    if not note:
        try:
            return {"verdict": context.model_cache.judge(guard, exchange.prompt, body), "guard": guard}
        except (GuardError, ModelError) as error:
            note = str(error)
    verdict = context.model_cache.judge(PHRASES, exchange.prompt, body)
    return {"verdict": verdict, "guard": PHRASES, "note": f"Judged by phrases: {note}"}
