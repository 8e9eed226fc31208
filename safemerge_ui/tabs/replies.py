"""The replies browser of the Evaluate tab: what one model said to each test prompt, or two beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from core.evaluation.replies import Asked, ReplyRow
from core.runs.folder import RunFolder
from core.runs.view import RunView
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind
from safemerge_ui.scripts import KEEP_OPENED
from safemerge_ui.views.measured_replies import Shown, choose_replies, no_replies, page_count, reply_cards
from safemerge_ui.views.names import category_name, model_name

ASKED = [("Unsafe", "harmful"), ("Harmless", "benign")]
SHOWN: list[tuple[str, Shown]] = [
    ("All", "all"),
    ("Safe", "safe"),
    ("Not safe", "unsafe"),
    ("Refused", "refused"),
    ("Not refused", "answered"),
    ("Broken text", "broken"),
    ("The two differ", "differ"),
]
NOBODY = ("Nobody", "")
EVERY_CATEGORY = ("All categories", "")


@dataclass(frozen=True)
class RepliesPanel:
    """Components of the panel."""

    model: gr.Dropdown
    beside: gr.Dropdown
    asked: gr.Radio
    category: gr.Dropdown
    shown: gr.Dropdown
    cards: gr.HTML
    page: gr.Slider

    @property
    def filters(self) -> list[gr.components.Component]:
        """What chooses the replies."""
        return [self.model, self.beside, self.asked, self.category, self.shown, self.page]

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `show_replies` fills."""
        return [self.model, self.beside, self.category, self.cards, self.page]


class Filters(NamedTuple):
    """Values of `RepliesPanel.filters`; models are None until a run is shown."""

    model: str | None
    beside: str | None
    asked: Asked
    category: str
    shown: Shown
    page: int


class RepliesShown(NamedTuple):
    """Values for `RepliesPanel.outputs`."""

    model: Any
    beside: Any
    category: Any
    cards: Any
    page: Any


def build() -> RepliesPanel:
    """Lay out filters and cards."""
    with gr.Column(elem_classes="sm-panel"):
        gr.HTML(
            "<h2>Replies</h2><p>Every measured reply with the guard's verdict. Of replies to unsafe prompts only "
            "those that the guard called safe are kept; of the others the verdict is.</p>"
        )
        with gr.Row(elem_classes="sm-choose"):
            model = gr.Dropdown([], label="Replies of", elem_id="replies-model", min_width=170)
            beside = gr.Dropdown([NOBODY], value=None, label="Beside", elem_id="replies-beside", min_width=170)
            category = gr.Dropdown(
                [EVERY_CATEGORY], value="", label="Category", elem_id="replies-category", min_width=170
            )
            shown = gr.Dropdown(SHOWN, value="all", label="Verdict", elem_id="replies-shown", min_width=130)
            asked = gr.Radio(ASKED, value="harmful", label="Prompts", elem_id="replies-asked", min_width=190)
        cards = gr.HTML(no_replies(), elem_id="replies-cards", js_on_load=KEEP_OPENED)
        page = gr.Slider(1, 2, value=1, step=1, label="Page of replies", visible=False)
    return RepliesPanel(model, beside, asked, category, shown, cards, page)


def wire(panel: RepliesPanel, context: AppContext, run_id: gr.State) -> None:
    """Bind filters and pages."""
    inputs = [run_id, *panel.filters]
    for control in (panel.model, panel.beside, panel.asked, panel.category, panel.shown):
        control.input(bind(filter_replies, context), inputs, panel.outputs, show_progress="hidden")
    panel.page.release(bind(turn_page, context), inputs, panel.cards, show_progress="hidden")


def show_replies(
    context: AppContext, folder: RunFolder, view: RunView, filters: Filters, reference: str
) -> RepliesShown:
    """The panel for a run as of now; a choice that the run does not have gives way to its last model, or to all."""
    names = [(model_name(model, view), model.name) for model in view.models]
    known = {name for _, name in names}
    merged = [one.name for one in view.models if one.role == "merged"]
    fallback = next(iter([*merged, *(name for _, name in reversed(names))]), None)
    model = filters.model if filters.model in known else fallback
    beside = filters.beside if filters.beside in {NOBODY[1], *known} else reference
    chosen = [name for name in dict.fromkeys((model, beside)) if name]
    files = [context.replies.rows(folder, name) for name in chosen]
    categories = sorted({row.category for rows in files for row in rows if row.asked == filters.asked} - {""})
    category = filters.category if filters.category in categories else ""
    found = choose_replies(files, filters.asked, category, filters.shown)
    pages = page_count(found)
    page = min(max(1, int(filters.page)), pages)
    return RepliesShown(
        model=gr.update(choices=names, value=model),
        beside=gr.update(choices=[NOBODY, *names], value=beside),
        category=gr.update(choices=[EVERY_CATEGORY, *((category_name(c), c) for c in categories)], value=category),
        cards=_cards(view, files, found, chosen, page),
        page=gr.update(value=page, maximum=max(2, pages), visible=pages > 1),
    )


def filter_replies(context: AppContext, run_id: str, *filters: Any) -> RepliesShown:
    """The first page of another choice."""
    folder, view, _ = context.watch.look(run_id)
    return show_replies(context, folder, view, Filters(*filters)._replace(page=1), NOBODY[1])


def turn_page(context: AppContext, run_id: str, *filters: Any) -> Any:
    """Another page of the same choice."""
    folder, view, _ = context.watch.look(run_id)
    return show_replies(context, folder, view, Filters(*filters), NOBODY[1]).cards


def _cards(
    view: RunView, files: Sequence[Sequence[ReplyRow]], found: Sequence[Any], names: Sequence[str], page: int
) -> str:
    if not files or not files[0]:
        return no_replies()
    words = {model.name: model_name(model, view) for model in view.models}
    return reply_cards(found, [words[name] for name in names], page)
