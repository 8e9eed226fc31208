"""Chat: the same prompt to two or three models side by side, each reply with the guard's verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from core.contracts.comparison_spec import AnySpec, ComparisonSpec, any_spec_from_dict
from core.contracts.optimizers import baselines as known_baselines
from core.errors import GuardError, ModelError, SafeMergeError
from core.guards.guard_names import PHRASES
from core.models.references import ModelReference, parse_reference
from core.runs.candidates import saved_candidates
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind
from safemerge_ui.prompt_lists import read_prompt_list
from safemerge_ui.scripts import KEEP_OPENED, PROMPT_LIST
from safemerge_ui.views.chat_replies import (
    KIND_NAMES,
    ExamplePrompt,
    Exchange,
    PromptKind,
    Reply,
    busy_note,
    exchanges_view,
    prompt_list_view,
)
from safemerge_ui.views.names import DOMAIN_ONLY, SAFETY_AWARE, merged_name
from safemerge_ui.watch import Watched

MODEL_COUNT = 3
MERGES = (SAFETY_AWARE, DOMAIN_ONLY)
CANDIDATE = "Candidate "
GUARD_NOTE = (
    '<p class="sm-foot">The <b>phrases</b> guard recognizes refusals and broken text but not harm: on a harmful prompt '
    "it counts only a refusal as safe. A guard model is loaded at its first use. If memory is short or a run is in "
    "progress, phrases judges instead, and the reply says so. Each prompt is a new conversation.</p>"
)

Choices = dict[str, ModelReference | None]
"""Models to chat with, by label; None where the label is the model's reference."""


@dataclass(frozen=True)
class ChatTab:
    """Components of the tab; `proposed` holds the models that the page itself selected."""

    models: list[gr.Dropdown]
    prompt: gr.Textbox
    kind: gr.Radio
    guard: gr.Dropdown
    send: gr.Button
    clear: gr.Button
    note: gr.HTML
    replies: gr.HTML
    prompt_lists: dict[PromptKind, gr.HTML]
    exchanges: gr.State
    proposed: gr.State

    @property
    def offers(self) -> list[Block]:
        """What `offer_models` fills."""
        return [*self.models, self.proposed, self.guard]


def build(context: AppContext) -> ChatTab:
    """Lay out the models, the prompt, the replies and the example prompts."""
    labels = list(model_choices(context, None))
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            with gr.Column(elem_classes="sm-panel"):
                with gr.Row():
                    models = [_model_field(index, labels) for index in range(MODEL_COUNT)]
                note = gr.HTML(elem_id="chat-note")
                prompt = gr.Textbox(
                    label="Prompt",
                    placeholder="Sent to every selected model",
                    lines=2,
                    max_lines=6,
                    elem_id="chat-prompt",
                )
                kind = gr.Radio(
                    [(name, kind) for kind, name in KIND_NAMES.items()],
                    value="own",
                    label="Kind of prompt",
                    info="Decides whether a refusal counts as right",
                    elem_id="chat-kind",
                )
                guard = gr.Dropdown(
                    guard_choices(context, None),
                    value=PHRASES,
                    label="Guard",
                    info="phrases, a guard model, or FAMILY:MODEL; several joined by &",
                    allow_custom_value=True,
                    elem_id="chat-guard",
                )
                with gr.Row(elem_classes="sm-actions"):
                    send = gr.Button("Ask", variant="primary", size="lg", elem_id="chat-send")
                    clear_button = gr.Button("Clear", size="lg")
                gr.HTML(GUARD_NOTE)
            replies = gr.HTML(exchanges_view([]), elem_id="chat-replies", js_on_load=KEEP_OPENED)
        with gr.Column(scale=2, min_width=300, elem_classes="sm-panel"):
            gr.HTML("<h2>Example prompts</h2>")
            prompt_lists = _build_prompt_lists(context)
    asking = (models, prompt, kind, guard, send, clear_button, note, replies)
    return ChatTab(*asking, prompt_lists, gr.State([]), gr.State(default_models(labels)))


def wire(tab: ChatTab, context: AppContext, run_id: gr.State) -> None:
    """Bind asking, clearing and the example prompts; the page binds what happens when the tab is opened."""
    inputs: set[Block] = {run_id, tab.prompt, tab.kind, tab.guard, tab.exchanges, *tab.models}
    for event in (tab.send.click, tab.prompt.submit):
        event(
            bind(ask, context, tab, run_id),
            inputs,
            [tab.replies, tab.exchanges, tab.note],
            concurrency_limit=1,
            concurrency_id="chat",
            show_progress="hidden",
        )
    tab.clear.click(bind(clear, tab), None, [tab.replies, tab.exchanges], show_progress="hidden")
    for kind, prompt_list in tab.prompt_lists.items():
        prompts = read_prompt_list(context.prompts, kind)
        prompt_list.ask(bind(use_prompt, tab, prompts), None, [tab.prompt, tab.kind], show_progress="hidden")


def ask(
    context: AppContext, tab: ChatTab, run_id: gr.State, values: Mapping[Any, Any], profile: gr.OAuthProfile | None
) -> Iterator[Updates]:
    """Send the prompt to each selected model in turn, and show each reply as soon as it is there."""
    require_starter(context.settings, profile)
    prompt, models = values[tab.prompt].strip(), _selected([values[model] for model in tab.models])
    if not prompt or not models:
        raise ModelError(
            "There is nothing to ask.", "Select at least one model and write a prompt.", code="nothing-to-ask"
        )
    note = busy_note(context.watch.busy_run())
    exchange = Exchange(prompt, values[tab.kind], tuple(Reply(model) for model in models))
    guard = str(values[tab.guard] or "").strip() or PHRASES
    for state in _answers(context, values[run_id], exchange, guard):
        history = [*values[tab.exchanges], state]
        yield {tab.replies: exchanges_view(history), tab.exchanges: history, tab.note: note}


def clear(tab: ChatTab) -> Updates:
    """Remove all exchanges from the page."""
    return {tab.replies: exchanges_view([]), tab.exchanges: []}


def use_prompt(tab: ChatTab, prompts: Sequence[ExamplePrompt], event: gr.EventData) -> Updates:
    """Copy an example prompt into the field."""
    chosen = prompts[int(event.index)]
    return {tab.prompt: chosen.prompt, tab.kind: chosen.kind}


def offer_models(context: AppContext, tab: ChatTab, run_id: gr.State, values: Mapping[Any, Any]) -> Updates:
    """Offer the models and the guard of the run on the page.

    The default models are selected, unless the visitor has selected others.
    """
    watched = context.watch.look(values[run_id]) if values[run_id] else None
    labels = list(model_choices(context, watched))
    updates: Updates = {tab.guard: gr.update(choices=guard_choices(context, watched))}
    if [values[model] for model in tab.models] != values[tab.proposed]:
        return {**updates, **{model: gr.update(choices=labels) for model in tab.models}}
    proposed = default_models(labels)
    selected = zip(tab.models, proposed, strict=True)
    updates |= {model: gr.update(choices=labels, value=value) for model, value in selected}
    return {**updates, tab.proposed: proposed}


def model_choices(context: AppContext, watched: Watched | None) -> Choices:
    """Return the models to chat with: merges that the run has saved, then its pool, then its saved candidates."""
    saved: Choices = {}
    candidates: Choices = {}
    members = _members(_spec_on_page(context, watched))
    if watched is not None:
        places = baseline_folders() | {merged_name(watched.view): Path("merged")}
        paths = {label: watched.folder.path / place for label, place in places.items()}
        saved = {
            label: ModelReference("folder", str(path))
            for label, path in paths.items()
            if (path / "config.json").is_file()
        }
        candidates = {
            f"{CANDIDATE}{number}": ModelReference("folder", str(path))
            for number, path in saved_candidates(watched.folder).items()
        }
    return saved | dict.fromkeys(members) | candidates


def baseline_folders() -> dict[str, Path]:
    """Return where a run saves its baselines, by title; first those whose search leaves the safety data out."""
    rows = sorted(known_baselines().values(), key=lambda row: (row.uses_safety_data, not row.takes_steps))
    return {row.title: Path("baselines", row.name) for row in rows}


def default_models(labels: Sequence[str]) -> list[str | None]:
    """Return a baseline (else the first expert) and the run's merge (else the base); the third field stays empty."""
    saved = baseline_folders()
    baselines = [label for label in labels if label in saved]
    merges = [label for label in labels if label in MERGES]
    pool = [label for label in labels if not _is_saved_model(label)]
    return [(baselines or pool[1:] or pool)[0], (merges or pool)[0], None]


def resolve_model(label: str, choices: Choices, context: AppContext) -> ModelReference:
    """Return the model that a label or reference names; merges that the run has saved are local folders.

    Raises:
        ModelError: there is no such model, or the run has not saved that merge or candidate.
    """
    known = choices.get(label)
    if known is not None:
        return known
    if _is_saved_model(label):
        raise ModelError(
            f"The run on this page has not saved '{label}'.",
            "Wait until the run is finished, or select another model.",
            code="model-not-saved",
        )
    return parse_reference(label, context.settings)


def guard_choices(context: AppContext, watched: Watched | None) -> list[str]:
    """Return `phrases`, and the guard of the run on the page or of the form's first spec."""
    spec = _spec_on_page(context, watched)
    return list(dict.fromkeys([PHRASES, spec.guard if isinstance(spec, ComparisonSpec) else spec.pool.guard]))


def _answers(context: AppContext, run_id: str, exchange: Exchange, guard: str) -> Iterator[Exchange]:
    """Yield the exchange each time that something in it changes."""
    choices = model_choices(context, context.watch.look(run_id) if run_id else None)
    for index, reply in enumerate(exchange.replies):
        try:
            ref = resolve_model(reply.model, choices, context)
            exchange = _with_reply(exchange, index, state="writing" if context.model_cache.holds(ref) else "loading")
            yield exchange
            body = context.model_cache.reply(ref, exchange.prompt)
            if guard != PHRASES:
                exchange = _with_reply(exchange, index, state="judging")
                yield exchange
            exchange = _with_reply(exchange, index, state="done", body=body, **_judge(context, guard, exchange, body))
        except SafeMergeError as error:
            exchange = _with_reply(exchange, index, state="failed", body=str(error))
        yield exchange


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


def _with_reply(exchange: Exchange, index: int, **changes: Any) -> Exchange:
    replies = list(exchange.replies)
    replies[index] = replace(replies[index], **changes)
    return replace(exchange, replies=tuple(replies))


def _selected(models: Sequence[str | None]) -> list[str]:
    return list(dict.fromkeys(model.strip() for model in models if model and model.strip()))


def _is_saved_model(label: str) -> bool:
    """Whether a label stands for a model in a run's folder."""
    return label in baseline_folders() or label in MERGES or label.startswith(CANDIDATE)


def _spec_on_page(context: AppContext, watched: Watched | None) -> AnySpec:
    """The spec of the run on the page; the form's first spec if there is none."""
    if watched is None or not watched.view.spec:
        return context.default_spec
    return any_spec_from_dict(watched.view.spec, stored=True)


def _members(spec: AnySpec) -> list[str]:
    """The models that a run merges or compares."""
    if isinstance(spec, ComparisonSpec):
        return [compared.model for compared in spec.models]
    return [spec.pool.base, *(expert.model for expert in spec.pool.experts)]


def _model_field(index: int, labels: Sequence[str]) -> gr.Dropdown:
    return gr.Dropdown(
        list(labels),
        value=default_models(labels)[index],
        label=f"Model {'ABC'[index]}",
        allow_custom_value=True,
        min_width=180,
    )


def _build_prompt_lists(context: AppContext) -> dict[PromptKind, gr.HTML]:
    prompt_lists: dict[PromptKind, gr.HTML] = {}
    kinds: tuple[PromptKind, ...] = ("harmful", "harmless", "domain")
    for kind in kinds:
        with gr.Accordion(KIND_NAMES[kind], open=kind == "harmful", elem_classes="sm-sub"):
            view = prompt_list_view(read_prompt_list(context.prompts, kind))
            prompt_lists[kind] = gr.HTML(view, js_on_load=PROMPT_LIST)
    return prompt_lists
