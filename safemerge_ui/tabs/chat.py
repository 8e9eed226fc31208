"""Chat: the same prompt to two or three models side by side, each reply with the guard's verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from core.contracts.comparison_spec import AnySpec, ComparisonSpec, any_spec_from_dict
from core.contracts.optimizers import baselines as known_baselines
from core.errors import GuardError, ModelError, SafeMergeError
from core.guards.guard_names import PHRASES
from core.models.references import ModelReference, parse_reference
from core.runs.candidates import saved_candidates
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind
from safemerge_ui.scripts import KEEP_OPENED, SHELF
from safemerge_ui.shelves import read_shelf
from safemerge_ui.views.chat_replies import (
    KIND_NAMES,
    Exchange,
    PromptKind,
    Reply,
    ShelfPrompt,
    busy_note,
    exchanges_view,
    shelf_view,
)
from safemerge_ui.views.names import DOMAIN_ONLY, SAFETY_AWARE, merged_name
from safemerge_ui.watch import Watched

SEATS = 3
MERGES = (SAFETY_AWARE, DOMAIN_ONLY)
CANDIDATE = "Candidate "
GUARD_NOTE = (
    '<p class="sm-foot">The <b>phrases</b> guard reads refusal wording and broken text, and cannot see harm: on a '
    "harmful prompt only a refusal counts as safe. A guard model is loaded when it is first asked; where it finds no "
    "memory, or a run is at work, phrases judges instead and the reply says so. Each prompt is asked on its own.</p>"
)


@dataclass(frozen=True)
class ChatTab:
    """Components of the tab; `seated` is the choice of models that the page made by itself."""

    selected_models: list[gr.Dropdown]
    prompt: gr.Textbox
    kind: gr.Radio
    guard: gr.Dropdown
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
        return [*self.selected_models, self.seated]


def build(context: AppContext) -> ChatTab:
    """Lay out the models, the prompt, the replies and the shelves."""
    labels = list(seat_choices(context, None))
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            with gr.Column(elem_classes="sm-panel"):
                with gr.Row(elem_classes="sm-seats"):
                    selected_models = [_seat(index, labels) for index in range(SEATS)]
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
                guard = gr.Dropdown(
                    guard_choices(context, None),
                    value=PHRASES,
                    label="Guard",
                    info="phrases, a guard model or FAMILY:MODEL; several with &",
                    allow_custom_value=True,
                    elem_id="chat-guard",
                )
                with gr.Row(elem_classes="sm-actions"):
                    send = gr.Button("Ask", variant="primary", size="lg", elem_id="chat-send")
                    clear = gr.Button("Clear", size="lg")
                gr.HTML(GUARD_NOTE)
            replies = gr.HTML(exchanges_view([]), elem_id="chat-replies", js_on_load=KEEP_OPENED)
        with gr.Column(scale=2, min_width=300, elem_classes="sm-panel"):
            gr.HTML("<h2>Prompt shelves</h2>")
            shelves = _shelves(context)
    return ChatTab(
        selected_models,
        prompt,
        kind,
        guard,
        send,
        clear,
        note,
        replies,
        shelves,
        gr.State([]),
        gr.State(default_seats(labels)),
    )


def wire(tab: ChatTab, context: AppContext, run_id: gr.State) -> None:
    """Bind asking, clearing and the shelves."""
    inputs = {run_id, tab.prompt, tab.kind, tab.guard, tab.exchanges, *tab.selected_models}
    for asked in (tab.send.click, tab.prompt.submit):
        asked(
            bind(ask, context, tab, run_id),
            inputs,
            [tab.replies, tab.exchanges, tab.note],
            concurrency_limit=1,
            concurrency_id="chat",
            show_progress="hidden",
        )
    tab.clear.click(bind(clear), None, [tab.replies, tab.exchanges], show_progress="hidden")
    for kind, model_cache in tab.shelves.items():
        prompts = read_shelf(context.prompts, kind)
        model_cache.ask(bind(use_prompt, prompts), None, [tab.prompt, tab.kind], show_progress="hidden")


def ask(
    context: AppContext, tab: ChatTab, run_id: gr.State, values: dict[Any, Any], profile: gr.OAuthProfile | None
) -> Iterator[tuple[str, list[Exchange], str]]:
    """Put the prompt to every chosen model, one after the other, and show each reply as it comes."""
    require_starter(context.settings, profile)
    prompt, models = values[tab.prompt].strip(), _chosen([values[seat] for seat in tab.selected_models])
    if not prompt or not models:
        raise ModelError("There is nothing to ask.", "Choose at least one model and write a prompt.")
    note = busy_note(context.watch.busy_run())
    exchange = Exchange(prompt, values[tab.kind], tuple(Reply(model) for model in models))
    guard = str(values[tab.guard] or "").strip() or PHRASES
    for state in _answers(context, values[run_id], exchange, guard):
        history = [*values[tab.exchanges], state]
        yield exchanges_view(history), history, note


def clear() -> tuple[str, list[Exchange]]:
    """Forget this page's exchanges."""
    return exchanges_view([]), []


def use_prompt(prompts: list[ShelfPrompt], event: gr.EventData) -> tuple[str, PromptKind]:
    """Put a prompt from a shelf into the box."""
    chosen = prompts[int(event.index)]
    return chosen.prompt, chosen.kind


def seat_updates(context: AppContext, run_id: str, seated: list[str | None], *current: str | None) -> list[Any]:
    """Offer the models of the run on this page; seat the pair that tells the story unless a person chose otherwise."""
    labels = list(seat_choices(context, context.watch.look(run_id) if run_id else None))
    if list(current) != seated:
        return [*(gr.update(choices=labels) for _ in current), gr.skip()]
    chosen = default_seats(labels)
    return [*(gr.update(choices=labels, value=value) for value in chosen), chosen]


def seat_choices(context: AppContext, watched: Watched | None) -> dict[str, ModelReference | None]:
    """Models to chat with, by label: the merges that the run on this page has saved, its pool (None: the label says
    it), and the candidates of its search that somebody saved."""
    saved: dict[str, ModelReference | None] = {}
    candidates: dict[str, ModelReference | None] = {}
    members = _members(_shown_spec(context, watched))
    if watched is not None:
        places = baseline_folders() | {merged_name(watched.view): Path("merged")}
        paths = {label: watched.folder.path / place for label, place in places.items()}
        saved = {
            label: ModelReference("folder", str(path))
            for label, path in paths.items()
            if (path / "config.json").is_file()
        }
        candidates = {
            f"{CANDIDATE}{number + 1}": ModelReference("folder", str(path))
            for number, path in saved_candidates(watched.folder).items()
        }
    return saved | dict.fromkeys(members) | candidates


def baseline_folders() -> dict[str, Path]:
    """Where a run saves its baselines, by title; first those whose search leaves the safety data out."""
    rows = sorted(known_baselines().values(), key=lambda row: (row.uses_safety_data, not row.takes_steps))
    return {row.title: Path("baselines", row.name) for row in rows}


def default_seats(labels: list[str]) -> list[str | None]:
    """A naive merge (else the first expert) beside the run's merge (else the base); the third seat is free."""
    saved = baseline_folders()
    baselines = [label for label in labels if label in saved]
    merges = [label for label in labels if label in MERGES]
    pool = [label for label in labels if not (label in saved or label in MERGES or label.startswith(CANDIDATE))]
    return [(baselines or pool[1:] or pool)[0], (merges or pool)[0], None]


def resolve_seat(label: str, choices: dict[str, ModelReference | None], context: AppContext) -> ModelReference:
    """The model that a seat names; a run's own merges are folders that the page itself knows.

    Raises:
        ModelError: it names nothing, or a merge or candidate that this run has not saved.
    """
    known = choices.get(label)
    if known is not None:
        return known
    if label in baseline_folders() or label in MERGES or label.startswith(CANDIDATE):
        raise ModelError(f"The run on this page has not saved '{label}'.", "Wait for its end, or choose another model.")
    return parse_reference(label, context.settings)


def guard_updates(context: AppContext, run_id: str) -> Any:
    """Offer the guard of the run on this page; what was chosen stays."""
    return gr.update(choices=guard_choices(context, context.watch.look(run_id) if run_id else None))


def guard_choices(context: AppContext, watched: Watched | None) -> list[str]:
    """`phrases`, and the guard of the run on this page, or of the form's first spec."""
    spec = _shown_spec(context, watched)
    return list(dict.fromkeys([PHRASES, spec.guard if isinstance(spec, ComparisonSpec) else spec.pool.guard]))


def _answers(context: AppContext, run_id: str, exchange: Exchange, guard: str) -> Iterator[Exchange]:
    """The exchange as it fills: one reply after the other."""
    choices = seat_choices(context, context.watch.look(run_id) if run_id else None)
    for index, reply in enumerate(exchange.replies):
        try:
            ref = resolve_seat(reply.model, choices, context)
            exchange = _with_reply(exchange, index, state="writing" if context.model_cache.holds(ref) else "loading")
            yield exchange
            body = context.model_cache.reply(ref, exchange.prompt)
            if guard != PHRASES:
                exchange = _with_reply(exchange, index, state="judging")
                yield exchange
            exchange = _with_reply(exchange, index, state="done", body=body, **_judged(context, guard, exchange, body))
        except SafeMergeError as error:
            exchange = _with_reply(exchange, index, state="failed", body=str(error))
        yield exchange


def _judged(context: AppContext, guard: str, exchange: Exchange, body: str) -> dict[str, Any]:
    """The verdict of the chosen guard; of `phrases`, with a note, where that guard cannot be had now."""
    busy = context.watch.busy_run() if guard != PHRASES else None
    note = f"{guard} waits until the run {busy} is over." if busy else ""
    if not note:
        try:
            return {"verdict": context.model_cache.judge(guard, exchange.prompt, body), "guard": guard}
        except (GuardError, ModelError) as error:
            note = str(error)
    verdict = context.model_cache.judge(PHRASES, exchange.prompt, body)
    return {"verdict": verdict, "guard": PHRASES, "note": f"Judged by phrases: {note}"}


def _with_reply(exchange: Exchange, index: int, **changes: Any) -> Exchange:
    replies = list(exchange.replies)
    replies[index] = replace(replies[index], **changes)
    return replace(exchange, replies=tuple(replies))


def _chosen(selected_models: list[str | None]) -> list[str]:
    return list(dict.fromkeys(seat.strip() for seat in selected_models if seat and seat.strip()))


def _shown_spec(context: AppContext, watched: Watched | None) -> AnySpec:
    """What the run on this page is asked to do; the form's first spec where there is none."""
    if watched is None or not watched.view.spec:
        return context.default_spec
    return any_spec_from_dict(watched.view.spec)


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


def _shelves(context: AppContext) -> dict[PromptKind, gr.HTML]:
    shelves: dict[PromptKind, gr.HTML] = {}
    kinds: tuple[PromptKind, ...] = ("harmful", "harmless", "domain")
    for kind in kinds:
        with gr.Accordion(KIND_NAMES[kind], open=kind == "harmful", elem_classes="sm-sub"):
            shelves[kind] = gr.HTML(shelf_view(read_shelf(context.prompts, kind)), js_on_load=SHELF)
    return shelves
