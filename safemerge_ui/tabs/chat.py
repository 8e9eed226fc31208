"""Chat: one conversation with two or three models side by side, each reply with the guard's verdict.

A prompt is added to the conversation at once (`ask`) and answered when the prompts before it are (`answer`). Both work
on the same list of exchanges, which belongs to one visitor's page: each sees what the other stops or adds.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.blocks import Block

from core.errors import ModelError
from core.guards.guard_names import PHRASES
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind
from safemerge_ui.prompt_lists import read_prompt_list
from safemerge_ui.scripts import CHAT, PROMPT_LIST, SAVE_TEXT
from safemerge_ui.tabs.chat_answers import answer as answer_exchange
from safemerge_ui.tabs.chat_answers import next_waiting
from safemerge_ui.tabs.chat_models import default_models, guard_choices, model_choices, the_merge
from safemerge_ui.views.chat_replies import (
    KIND_NAMES,
    OVER,
    Asked,
    ExamplePrompt,
    Exchange,
    PromptKind,
    Reply,
    busy_note,
    exchanges_view,
    prompt_list_view,
    tally_view,
)

MODEL_COUNT = 3
LONGEST_TOKENS = 1024
INTRO = (
    "<h1>Chat</h1><p>The same prompt for every model, side by side. A follow-up continues each model's own "
    "conversation.</p>"
)
GUARD_NOTE = (
    '<p class="sm-foot">The <b>phrases</b> guard recognizes refusals and broken text but not harm: on a harmful prompt '
    "it counts only a refusal as safe. A guard model is loaded at its first use. If memory is short or a run is in "
    "progress, phrases judges instead, and the reply says so.</p>"
)


@dataclass(frozen=True)
class ChatTab:
    """Components of the tab.

    Attributes:
        settings: system prompt, temperature and longest reply, by the names of `Asked`.
        blind: whether the models of the next prompts stay unnamed until a guess.
        exchanges: the conversation, oldest first; one list for the whole visit.
        asked: grows with every prompt that is to be answered.
        exported: the conversation as text, on its way to the visitor's disk.
        proposed: the models that the page itself selected.
    """

    models: list[gr.Dropdown]
    prompt: gr.Textbox
    kind: gr.Radio
    guard: gr.Dropdown
    settings: dict[str, gr.components.Component]
    blind: gr.Checkbox
    send: gr.Button
    stop: gr.Button
    again: gr.Button
    edit: gr.Button
    clear: gr.Button
    export: gr.Button
    note: gr.HTML
    tally: gr.HTML
    replies: gr.HTML
    prompt_lists: dict[PromptKind, gr.HTML]
    exchanges: gr.State
    asked: gr.State
    exported: gr.Textbox
    proposed: gr.State

    @property
    def offers(self) -> list[Block]:
        """What `offer_models` fills."""
        return [*self.models, self.proposed, self.guard]

    @property
    def shown(self) -> list[Block]:
        """What shows the conversation."""
        return [self.replies, self.tally, self.exchanges]

    @property
    def asking(self) -> set[Block]:
        """What a new prompt reads."""
        fields = {self.prompt, self.kind, self.guard, self.blind, self.exchanges, self.asked}
        return {*fields, *self.models, *self.settings.values()}


def build(context: AppContext) -> ChatTab:
    """Lay out the models, the prompt, the replies and the example prompts."""
    labels = list(model_choices(context, None))
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            with gr.Column(elem_classes="sm-panel"):
                gr.HTML(INTRO)
                with gr.Row():
                    models = [_model_field(index, labels) for index in range(MODEL_COUNT)]
                note = gr.HTML(elem_id="chat-note")
                prompt, kind, guard, settings, blind = _prompt_fields(context)
                buttons = _buttons()
                gr.HTML(GUARD_NOTE)
            tally = gr.HTML(elem_id="chat-tally")
            replies = gr.HTML(exchanges_view([]), elem_id="chat-replies", js_on_load=CHAT)
        with gr.Column(scale=2, min_width=300, elem_classes="sm-panel"):
            gr.HTML("<h2>Example prompts</h2>")
            prompt_lists = _build_prompt_lists(context)
    exported = gr.Textbox(visible="hidden", elem_id="chat-exported")
    states = (gr.State([]), gr.State(0), exported, gr.State(default_models(labels)))
    asking = [models, prompt, kind, guard, settings, blind, *buttons]
    return ChatTab(*[*asking, note, tally, replies, prompt_lists, *states])


def wire(tab: ChatTab, context: AppContext, run_id: gr.State) -> None:
    """Bind asking, answering and the example prompts; the page binds what happens when the tab is opened."""
    sent = [*tab.shown, tab.prompt, tab.asked]
    quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple"}
    for event in (tab.send.click, tab.prompt.submit):
        event(bind(ask, context, tab, run_id), {run_id, *tab.asking}, sent, **quiet)
    tab.asked.change(
        bind(answer, context, tab), tab.exchanges, [*tab.shown, tab.note],
        concurrency_limit=1, concurrency_id="chat", **quiet,
    )  # fmt: skip
    tab.again.click(bind(regenerate, context, tab), [tab.exchanges, tab.asked], [*tab.shown, tab.asked], **quiet)
    tab.edit.click(bind(edit, tab), tab.exchanges, [*tab.shown, tab.prompt, tab.kind], **quiet)
    tab.stop.click(bind(stop, tab), tab.exchanges, tab.shown, **quiet)
    tab.clear.click(bind(clear, tab), tab.exchanges, tab.shown, **quiet)
    tab.replies.guess(bind(guess, tab), tab.exchanges, tab.shown, **quiet)
    saved = tab.export.click(bind(export, tab), tab.exchanges, tab.exported, show_progress="hidden")
    saved.then(None, tab.exported, None, js=SAVE_TEXT)
    for kind, prompt_list in tab.prompt_lists.items():
        prompts = read_prompt_list(context.prompts, kind)
        prompt_list.ask(bind(use_prompt, tab, prompts), None, [tab.prompt, tab.kind], show_progress="hidden")


def ask(
    context: AppContext, tab: ChatTab, run_id: gr.State, values: Mapping[Any, Any], profile: gr.OAuthProfile | None
) -> Updates:
    """Add the prompt to the conversation; it is answered when the prompts before it are."""
    require_starter(context.settings, profile)
    prompt, models = values[tab.prompt].strip(), _selected([values[model] for model in tab.models])
    if not prompt or not models:
        raise ModelError(
            "There is nothing to ask.", "Select at least one model and write a prompt.", code="nothing-to-ask"
        )
    blind = bool(values[tab.blind]) and len(models) > 1
    asked = Asked(
        run_id=values[run_id],
        system=str(values[tab.settings["system"]] or "").strip(),
        temperature=float(values[tab.settings["temperature"]] or 0.0),
        tokens=max(1, min(LONGEST_TOKENS, int(values[tab.settings["tokens"]] or 1))),
        guard=str(values[tab.guard] or "").strip() or PHRASES,
    )
    replies = tuple(Reply(model) for model in (random.sample(models, len(models)) if blind else models))
    history: list[Exchange] = values[tab.exchanges]
    history.append(Exchange(prompt, values[tab.kind], replies, asked, blind, the_merge(models) if blind else ""))
    return {**show(tab, history), tab.prompt: "", tab.asked: values[tab.asked] + 1}


def answer(
    context: AppContext, tab: ChatTab, history: list[Exchange], profile: gr.OAuthProfile | None
) -> Iterator[Updates]:
    """Answer the first prompt that waits, and show each reply while it is written."""
    require_starter(context.settings, profile)
    index = next_waiting(history)
    if index is None:
        return
    note = busy_note(context.watch.busy_run())
    for _ in answer_exchange(context, history, index):
        yield {**show(tab, history), tab.note: note}


def regenerate(
    context: AppContext, tab: ChatTab, history: list[Exchange], asked: int, profile: gr.OAuthProfile | None
) -> Updates:
    """Ask the last prompt again, with the next seed; at temperature 0 the replies stay the same."""
    require_starter(context.settings, profile)
    if not history or not history[-1].over:
        return {}
    last = history[-1]
    replies = tuple(Reply(reply.model) for reply in last.replies)
    history[-1] = replace(last, replies=replies, asked=replace(last.asked, seed=last.asked.seed + 1), guess="")
    return {**show(tab, history), tab.asked: asked + 1}


def stop(tab: ChatTab, history: list[Exchange]) -> Updates:
    """Stop all replies that are written or wait; what is written stays."""
    for index, exchange in enumerate(history):
        if not exchange.over:
            stopped = (one if one.state in OVER else replace(one, state="stopped") for one in exchange.replies)
            history[index] = replace(exchange, replies=tuple(stopped))
    return show(tab, history)


def edit(tab: ChatTab, history: list[Exchange]) -> Updates:
    """Take the last prompt back into the field, without its replies."""
    if not history:
        return {}
    last = history.pop()
    return {**show(tab, history), tab.prompt: last.prompt, tab.kind: last.kind}


def clear(tab: ChatTab, history: list[Exchange]) -> Updates:
    """Begin a new conversation."""
    history.clear()
    return show(tab, history)


def guess(tab: ChatTab, history: list[Exchange], event: gr.EventData) -> Updates:
    """Note which reply of a blind exchange the visitor chose, and name the models."""
    number, index = (int(part) for part in str(event.place).split("-"))
    if number < len(history) and history[number].hidden and history[number].over:
        history[number] = replace(history[number], guess=history[number].replies[index].model)
    return show(tab, history)


def export(tab: ChatTab, history: list[Exchange]) -> Updates:
    """Return the conversation as JSON; replies to harmful prompts only where the guard counts them as safe."""
    return {tab.exported: json.dumps([_exported(one) for one in history], indent=2, ensure_ascii=False)}


def show(tab: ChatTab, history: list[Exchange]) -> Updates:
    """Show the conversation."""
    return {tab.replies: exchanges_view(history), tab.tally: tally_view(history), tab.exchanges: history}


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


def _exported(exchange: Exchange) -> dict[str, Any]:
    asked = exchange.asked
    return {
        "prompt": exchange.prompt,
        "kind": exchange.kind,
        "system": asked.system,
        "temperature": asked.temperature,
        "seed": asked.seed,
        "blind": {"merge": exchange.merge, "guess": exchange.guess} if exchange.blind else None,
        "replies": [_exported_reply(exchange, reply) for reply in exchange.replies],
    }


def _exported_reply(exchange: Exchange, reply: Reply) -> dict[str, Any]:
    verdict = reply.verdict
    kept = exchange.kind != "harmful" or (verdict is not None and verdict.safe_to_all)
    judged = verdict._asdict() | {"guard": reply.guard} if verdict else None
    return {
        "model": reply.model,
        "state": reply.state,
        "reply": reply.body if kept else None,
        "verdict": {key: judged[key] for key in ("guard", "refusal", "safe", "degenerate", "category", "reason")}
        if judged
        else None,
    }


def _selected(models: Sequence[str | None]) -> list[str]:
    return list(dict.fromkeys(model.strip() for model in models if model and model.strip()))


def _model_field(index: int, labels: Sequence[str]) -> gr.Dropdown:
    return gr.Dropdown(
        list(labels),
        value=default_models(labels)[index],
        label=f"Model {'ABC'[index]}",
        allow_custom_value=True,
        min_width=180,
    )


def _prompt_fields(context: AppContext) -> tuple[Any, ...]:
    """Lay out the prompt and how it is answered; returns the components from `prompt` to `blind`."""
    prompt = gr.Textbox(
        label="Prompt", placeholder="Sent to every selected model", lines=2, max_lines=6, elem_id="chat-prompt"
    )
    kind = gr.Radio(
        [(name, kind) for kind, name in KIND_NAMES.items()],
        value="own",
        label="Kind of prompt",
        info="Decides whether a refusal counts as right",
        elem_id="chat-kind",
    )
    with gr.Accordion("Guard, system prompt, temperature", open=False, elem_classes="sm-sub", elem_id="chat-settings"):
        guard = gr.Dropdown(
            guard_choices(context, None),
            value=PHRASES,
            label="Guard",
            info="phrases, a guard model, or FAMILY:MODEL; several joined by &",
            allow_custom_value=True,
            elem_id="chat-guard",
        )
        settings: dict[str, gr.components.Component] = {
            "system": gr.Textbox(label="System prompt", info="Empty: the model's own", lines=1, elem_id="chat-system")
        }
        with gr.Row():
            settings["temperature"] = gr.Slider(0, 1.5, 0, step=0.1, label="Temperature", elem_id="chat-temperature")
            settings["tokens"] = gr.Slider(16, LONGEST_TOKENS, 160, step=16, label="Longest reply (tokens)")
    blind = gr.Checkbox(label="Blind", info="Names of the models appear after your guess", elem_id="chat-blind")
    return prompt, kind, guard, settings, blind


def _buttons() -> tuple[gr.Button, ...]:
    """Lay out the buttons, in the order of `ChatTab`."""
    with gr.Row(elem_classes="sm-actions"):
        send = gr.Button("Ask", variant="primary", size="lg", elem_id="chat-send")
        stop_button = gr.Button("Stop", size="lg", elem_id="chat-stop")
        again = gr.Button("Regenerate", size="sm", elem_id="chat-again")
        edit_button = gr.Button("Edit last prompt", size="sm", elem_id="chat-edit")
        clear_button = gr.Button("New conversation", size="sm", elem_id="chat-clear")
        export_button = gr.Button("Export", size="sm", elem_id="chat-export")
    return send, stop_button, again, edit_button, clear_button, export_button


def _build_prompt_lists(context: AppContext) -> dict[PromptKind, gr.HTML]:
    prompt_lists: dict[PromptKind, gr.HTML] = {}
    kinds: tuple[PromptKind, ...] = ("harmful", "harmless", "domain")
    for kind in kinds:
        with gr.Accordion(KIND_NAMES[kind], open=kind == "harmful", elem_classes="sm-sub"):
            view = prompt_list_view(read_prompt_list(context.prompts, kind))
            prompt_lists[kind] = gr.HTML(view, js_on_load=PROMPT_LIST)
    return prompt_lists
