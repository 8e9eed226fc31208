"""The replies browser of the Evaluate tab: the replies of one model to each test prompt, or of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr
from gradio.blocks import Block

from core.evaluation.replies import Asked, ReplyRow
from core.runs.folder import RunFolder
from core.runs.view import RunView
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind
from safemerge_ui.scripts import KEEP_OPENED
from safemerge_ui.views.measured_replies import Shown, choose_replies, no_replies, page_count, reply_cards
from safemerge_ui.views.names import category_name, model_name

ASKED: list[tuple[str, Asked]] = [("Unsafe", "harmful"), ("Harmless", "benign")]
SHOWN: list[tuple[str, Shown]] = [
    ("All", "all"),
    ("Safe", "safe"),
    ("Not safe", "unsafe"),
    ("Refused", "refused"),
    ("Not refused", "answered"),
    ("Broken text", "broken"),
    ("Verdicts differ", "differ"),
]
NO_MODEL = ("(none)", "")
EVERY_CATEGORY = ("All categories", "")


@dataclass(frozen=True)
class RepliesPanel:
    """Components of the panel; `second` is the model whose replies stand beside those of `model`."""

    model: gr.Dropdown
    second: gr.Dropdown
    asked: gr.Radio
    category: gr.Dropdown
    shown: gr.Dropdown
    cards: gr.HTML
    page: gr.Slider

    @property
    def filters(self) -> list[Block]:
        """What selects the replies."""
        return [self.model, self.second, self.asked, self.category, self.shown, self.page]

    @property
    def outputs(self) -> list[Block]:
        """What `show_replies` fills."""
        return [self.model, self.second, self.category, self.cards, self.page]


class Filters(NamedTuple):
    """Values of `RepliesPanel.filters`; models are None until a run is shown."""

    model: str | None
    second: str | None
    asked: Asked
    category: str
    shown: Shown
    page: int


def build() -> RepliesPanel:
    """Lay out filters and cards."""
    with gr.Column(elem_classes="sm-panel"):
        gr.HTML(
            "<h2>Replies</h2><p>All measured replies, each with the guard's verdict. The text of a reply to an unsafe "
            "prompt is stored only if the guard called it safe.</p>"
        )
        with gr.Row(elem_classes="sm-choose"):
            model = gr.Dropdown([], label="Replies of", elem_id="replies-model", min_width=170)
            second = gr.Dropdown([NO_MODEL], value=None, label="Beside", elem_id="replies-beside", min_width=170)
            category = gr.Dropdown(
                [EVERY_CATEGORY], value="", label="Category", elem_id="replies-category", min_width=170
            )
            shown = gr.Dropdown(SHOWN, value="all", label="Verdict", elem_id="replies-shown", min_width=130)
            asked = gr.Radio(ASKED, value="harmful", label="Prompts", elem_id="replies-asked", min_width=190)
        cards = gr.HTML(no_replies(), elem_id="replies-cards", js_on_load=KEEP_OPENED)
        page = gr.Slider(1, 2, value=1, step=1, label="Page of replies", visible=False)
    return RepliesPanel(model, second, asked, category, shown, cards, page)


def wire(panel: RepliesPanel, context: AppContext, run_id: gr.State) -> None:
    """Bind filters and pages."""
    inputs = [run_id, *panel.filters]
    for control in (panel.model, panel.second, panel.asked, panel.category, panel.shown):
        control.input(bind(filter_replies, context, panel), inputs, panel.outputs, show_progress="hidden")
    panel.page.release(bind(turn_page, context, panel), inputs, panel.cards, show_progress="hidden")


def show_replies(
    context: AppContext, panel: RepliesPanel, folder: RunFolder, view: RunView, filters: Filters, reference: str
) -> Updates:
    """Show the replies that the filters select.

    A model that the run does not have is replaced by the merge or the last measured model, a second model that it does
    not have by `reference`, and a category without prompts by all categories.
    """
    names = [(model_name(model, view), model.name) for model in view.models]
    known = {name for _, name in names}
    merged = [one.name for one in view.models if one.role == "merged"]
    fallback = next(iter([*merged, *(name for _, name in reversed(names))]), None)
    model = filters.model if filters.model in known else fallback
    second = filters.second if filters.second in {NO_MODEL[1], *known} else reference
    chosen = [name for name in dict.fromkeys((model, second)) if name]
    files = [context.replies.rows(folder, name) for name in chosen]
    categories = sorted({row.category for rows in files for row in rows if row.asked == filters.asked} - {""})
    category = filters.category if filters.category in categories else ""
    selected = choose_replies(files, filters.asked, category, filters.shown)
    pages = page_count(selected)
    page = min(max(1, int(filters.page)), pages)
    return {
        panel.model: gr.update(choices=names, value=model),
        panel.second: gr.update(choices=[NO_MODEL, *names], value=second),
        panel.category: gr.update(
            choices=[EVERY_CATEGORY, *((category_name(c), c) for c in categories)], value=category
        ),
        panel.cards: _cards(view, files, selected, chosen, page),
        panel.page: gr.update(value=page, maximum=max(2, pages), visible=pages > 1),
    }


def filter_replies(context: AppContext, panel: RepliesPanel, run_id: str, *filters: Any) -> Updates:
    """Show the first page of another selection."""
    folder, view, *_ = context.watch.look(run_id)
    return show_replies(context, panel, folder, view, Filters(*filters)._replace(page=1), NO_MODEL[1])


def turn_page(context: AppContext, panel: RepliesPanel, run_id: str, *filters: Any) -> Updates:
    """Show another page of the same selection."""
    folder, view, *_ = context.watch.look(run_id)
    return {panel.cards: show_replies(context, panel, folder, view, Filters(*filters), NO_MODEL[1])[panel.cards]}


def _cards(
    view: RunView, files: Sequence[Sequence[ReplyRow]], selected: Sequence[Any], names: Sequence[str], page: int
) -> str:
    if not files or not files[0]:
        return no_replies()
    labels = {model.name: model_name(model, view) for model in view.models}
    return reply_cards(selected, [labels[name] for name in names], page)
