"""Chat: the same prompt to two or three models side by side, each reply with the guard's verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from core.comparison_spec import AnySpec, ComparisonSpec, any_spec_from_dict
from core.errors import ModelError, SafeMergeError
from core.guards.registry import load_guard
from core.models.references import ModelReference, parse_reference
from core.specs import Comparison
from safemerge_ui.access import require_starter
from safemerge_ui.bench import Bench
from safemerge_ui.boundary import bind
from safemerge_ui.scripts import KEEP_OPENED, SHELF
from safemerge_ui.shelves import read_shelf
from safemerge_ui.views.chat import (
    KIND_NAMES,
    Exchange,
    PromptKind,
    Reply,
    ShelfPrompt,
    busy_note,
    exchanges_view,
    shelf_view,
)
from safemerge_ui.views.names import DOMAIN_ONLY, SAFETY_AWARE, merged_name, search_name
from safemerge_ui.watch import Watched

SEATS = 3
MERGES = (SAFETY_AWARE, DOMAIN_ONLY)
_NAIVE_FIRST: tuple[Comparison, ...] = ("evomm_expert_only", "equal", "grid", "cocktail_expert_only", "cocktail")
BASELINES = {search_name(name): Path("baselines", name) for name in _NAIVE_FIRST}
GUARD_NOTE = (
    '<p class="sm-foot">Verdicts come from the <b>phrases</b> guard: it reads refusal wording and broken text, and '
    "cannot see harm. On a harmful prompt only a refusal counts as safe. Each prompt is asked on its own.</p>"
)


@dataclass(frozen=True)
class ChatTab:
    """Components of the tab; `seated` is the choice of models that the page made by itself."""

    seats: list[gr.Dropdown]
    prompt: gr.Textbox
    kind: gr.Radio
    send: gr.Button
    clear: gr.Button
    note: gr.HTML
    replies: gr.HTML
    shelves: dict[PromptKind, gr.HTML]
    exchanges: gr.State
    seated: gr.State

    @property
    def seating(self) -> list[gr.components.Component]:
        """What `seat_updates` fills."""
        return [*self.seats, self.seated]


def build(bench: Bench) -> ChatTab:
    """Lay out the models, the prompt, the replies and the shelves."""
    labels = list(seat_choices(bench, None))
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            with gr.Column(elem_classes="sm-panel"):
                with gr.Row(elem_classes="sm-seats"):
                    seats = [_seat(index, labels) for index in range(SEATS)]
                note = gr.HTML(elem_id="chat-note")
                prompt = gr.Textbox(
                    label="Prompt",
                    placeholder="Ask all of them the same thing",
                    lines=2,
                    max_lines=6,
                    elem_id="chat-prompt",
                )
                kind = gr.Radio(
                    [(name, kind) for kind, name in KIND_NAMES.items()], value="own", label="This prompt is"
                )
                with gr.Row(elem_classes="sm-actions"):
                    send = gr.Button("Ask", variant="primary", size="lg", elem_id="chat-send")
                    clear = gr.Button("Clear", size="lg")
                gr.HTML(GUARD_NOTE)
            replies = gr.HTML(exchanges_view([]), elem_id="chat-replies", js_on_load=KEEP_OPENED)
        with gr.Column(scale=2, min_width=300, elem_classes="sm-panel"):
            gr.HTML("<h2>Prompt shelves</h2>")
            shelves = _shelves(bench)
    return ChatTab(
        seats, prompt, kind, send, clear, note, replies, shelves, gr.State([]), gr.State(default_seats(labels))
    )


def wire(tab: ChatTab, bench: Bench, run_id: gr.State) -> None:
    """Bind asking, clearing and the shelves."""
    inputs = {run_id, tab.prompt, tab.kind, tab.exchanges, *tab.seats}
    for asked in (tab.send.click, tab.prompt.submit):
        asked(
            bind(ask, bench, tab, run_id),
            inputs,
            [tab.replies, tab.exchanges, tab.note],
            concurrency_limit=1,
            concurrency_id="chat",
            show_progress="hidden",
        )
    tab.clear.click(bind(clear), None, [tab.replies, tab.exchanges], show_progress="hidden")
    for kind, shelf in tab.shelves.items():
        prompts = read_shelf(bench.prompts, kind)
        shelf.ask(bind(use_prompt, prompts), None, [tab.prompt, tab.kind], show_progress="hidden")


def ask(
    bench: Bench, tab: ChatTab, run_id: gr.State, values: dict[Any, Any], profile: gr.OAuthProfile | None
) -> Iterator[tuple[str, list[Exchange], str]]:
    """Put the prompt to every chosen model, one after the other, and show each reply as it comes."""
    require_starter(bench.settings, profile)
    prompt, models = values[tab.prompt].strip(), _chosen([values[seat] for seat in tab.seats])
    if not prompt or not models:
        raise ModelError("There is nothing to ask.", "Choose at least one model and write a prompt.")
    note = busy_note(bench.watch.busy_run())
    exchange = Exchange(prompt, values[tab.kind], tuple(Reply(model) for model in models))
    for state in _answers(bench, values[run_id], exchange):
        history = [*values[tab.exchanges], state]
        yield exchanges_view(history), history, note


def clear() -> tuple[str, list[Exchange]]:
    """Forget this page's exchanges."""
    return exchanges_view([]), []


def use_prompt(prompts: list[ShelfPrompt], event: gr.EventData) -> tuple[str, PromptKind]:
    """Put a prompt from a shelf into the box."""
    chosen = prompts[int(event.index)]
    return chosen.prompt, chosen.kind


def seat_updates(bench: Bench, run_id: str, seated: list[str | None], *current: str | None) -> list[Any]:
    """Offer the models of the run on this page; seat the pair that tells the story unless a person chose otherwise."""
    labels = list(seat_choices(bench, bench.watch.look(run_id) if run_id else None))
    if list(current) != seated:
        return [*(gr.update(choices=labels) for _ in current), gr.skip()]
    chosen = default_seats(labels)
    return [*(gr.update(choices=labels, value=value) for value in chosen), chosen]


def seat_choices(bench: Bench, watched: Watched | None) -> dict[str, ModelReference | None]:
    """Models to chat with, by label: what the run on this page has saved, then its pool (None: the label says it)."""
    saved: dict[str, ModelReference | None] = {}
    members = _members(bench.default_spec)
    if watched is not None and watched.view.spec:
        members = _members(any_spec_from_dict(watched.view.spec))
        places = BASELINES | {merged_name(watched.view): Path("merged")}
        paths = {label: watched.folder.path / place for label, place in places.items()}
        saved = {
            label: ModelReference("folder", str(path))
            for label, path in paths.items()
            if (path / "config.json").is_file()
        }
    return saved | dict.fromkeys(members)


def default_seats(labels: list[str]) -> list[str | None]:
    """A naive merge (else the first expert) beside the run's merge (else the base); the third seat is free."""
    baselines = [label for label in labels if label in BASELINES]
    merges = [label for label in labels if label in MERGES]
    pool = [label for label in labels if label not in BASELINES and label not in MERGES]
    return [(baselines or pool[1:] or pool)[0], (merges or pool)[0], None]


def resolve_seat(label: str, choices: dict[str, ModelReference | None], bench: Bench) -> ModelReference:
    """The model that a seat names; a run's own merges are folders that the page itself knows.

    Raises:
        ModelError: it names nothing, or a merge that this run has not saved.
    """
    known = choices.get(label)
    if known is not None:
        return known
    if label in BASELINES or label in MERGES:
        raise ModelError(f"The run on this page has not saved '{label}'.", "Wait for its end, or choose another model.")
    return parse_reference(label, bench.settings)


def _answers(bench: Bench, run_id: str, exchange: Exchange) -> Iterator[Exchange]:
    """The exchange as it fills: one reply after the other."""
    choices = seat_choices(bench, bench.watch.look(run_id) if run_id else None)
    for index, reply in enumerate(exchange.replies):
        try:
            ref = resolve_seat(reply.model, choices, bench)
            exchange = _with_reply(exchange, index, state="writing" if bench.shelf.holds(ref) else "loading")
            yield exchange
            exchange = _with_reply(exchange, index, **_answer(bench, ref, exchange.prompt))
        except SafeMergeError as error:
            exchange = _with_reply(exchange, index, state="failed", body=str(error))
        yield exchange


def _answer(bench: Bench, ref: ModelReference, prompt: str) -> dict[str, Any]:
    body = bench.shelf.reply(ref, prompt)
    [verdict] = load_guard("phrases", bench.settings).judge([(prompt, body)])
    return {"state": "done", "body": body, "verdict": verdict}


def _with_reply(exchange: Exchange, index: int, **changes: Any) -> Exchange:
    replies = list(exchange.replies)
    replies[index] = replace(replies[index], **changes)
    return replace(exchange, replies=tuple(replies))


def _chosen(seats: list[str | None]) -> list[str]:
    return list(dict.fromkeys(seat.strip() for seat in seats if seat and seat.strip()))


def _members(spec: AnySpec) -> list[str]:
    """The models that a run merges or compares."""
    if isinstance(spec, ComparisonSpec):
        return [compared.model for compared in spec.models]
    return [spec.pool.base, *(expert.model for expert in spec.pool.experts)]


def _seat(index: int, labels: list[str]) -> gr.Dropdown:
    return gr.Dropdown(
        labels,
        value=default_seats(labels)[index],
        label=f"Model {'ABC'[index]}",
        allow_custom_value=True,
        min_width=180,
    )


def _shelves(bench: Bench) -> dict[PromptKind, gr.HTML]:
    shelves: dict[PromptKind, gr.HTML] = {}
    kinds: tuple[PromptKind, ...] = ("harmful", "harmless", "domain")
    for kind in kinds:
        with gr.Accordion(KIND_NAMES[kind], open=kind == "harmful", elem_classes="sm-sub"):
            shelves[kind] = gr.HTML(shelf_view(read_shelf(bench.prompts, kind)), js_on_load=SHELF)
    return shelves
