"""Runs: the history of runs; open, follow, resume or delete one of them."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.blocks import Block

from core.runs.history import delete_run
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.scripts import HISTORY, SHOW_QUESTION
from safemerge_ui.views.markup import notice
from safemerge_ui.views.run_list import RunRow, history_view


@dataclass(frozen=True)
class RunsTab:
    """Components of the tab; `pending_delete` is the run whose deletion the visitor has not confirmed yet."""

    refresh: gr.Button
    notice: gr.HTML
    question: gr.Group
    question_text: gr.HTML
    confirm: gr.Button
    cancel: gr.Button
    history: gr.HTML
    pending_delete: gr.State

    @property
    def confirmation(self) -> list[Block]:
        """What asking for confirmation fills."""
        return [self.pending_delete, self.question, self.question_text]


def build() -> RunsTab:
    """Lay out the history."""
    with gr.Column(elem_classes="sm-panel"):
        with gr.Row(elem_classes="sm-headrow"):
            gr.HTML(
                "<h1>Runs</h1><p>Newest first. A run continues when the page is closed. A failed or stopped run can be "
                "resumed from its last step.</p>"
            )
            refresh = gr.Button("Refresh", size="sm", elem_classes="sm-quiet", scale=0, min_width=110)
        message = gr.HTML(elem_id="runs-notice")
        with gr.Group(visible=False, elem_classes="sm-confirm") as question:
            question_text = gr.HTML(elem_id="runs-question")
            with gr.Row(elem_classes="sm-actions"):
                confirm = gr.Button("Delete", variant="stop", size="sm", elem_id="runs-confirm")
                cancel = gr.Button("Cancel", size="sm")
        history = gr.HTML(history_view([]), elem_id="runs-history", js_on_load=HISTORY)
    return RunsTab(refresh, message, question, question_text, confirm, cancel, history, gr.State(""))


def wire(tab: RunsTab, context: AppContext, run_id: gr.State) -> None:
    """Bind refreshing and deleting; the page binds opening and resuming."""
    tab.refresh.click(bind(show_history, context), run_id, tab.history, show_progress="hidden")
    asked = tab.history.remove(bind(ask_to_delete, tab), None, tab.confirmation, show_progress="hidden")
    asked.then(None, None, None, js=SHOW_QUESTION)
    tab.cancel.click(bind(hide_question, tab), None, tab.confirmation, show_progress="hidden")
    tab.confirm.click(
        bind_with_notice(delete, tab.notice, context, tab),
        [tab.pending_delete, run_id],
        [tab.notice, tab.history, *tab.confirmation],
    )


def show_history(context: AppContext, run_id: str) -> str:
    """Return all runs as HTML."""
    rows = [RunRow(run, run.merged) for run in context.watch.list_runs()]
    return history_view(rows, run_id)


def ask_to_delete(tab: RunsTab, event: gr.EventData) -> Updates:
    """Ask for confirmation before a run's folder is deleted."""
    run_id = chosen_run(event)
    question = notice(f"Delete the run {run_id} with its data and merged model?", "This cannot be undone.", "warn")
    return {tab.pending_delete: run_id, tab.question: gr.update(visible=True), tab.question_text: question}


def hide_question(tab: RunsTab) -> Updates:
    """Hide the question."""
    return {tab.pending_delete: "", tab.question: gr.update(visible=False), tab.question_text: ""}


def delete(
    context: AppContext, tab: RunsTab, pending_delete: str, run_id: str, profile: gr.OAuthProfile | None
) -> Updates:
    """Delete the run that the visitor confirmed."""
    require_starter(context.settings, profile)
    delete_run(context.watch.folder(pending_delete), context.settings)
    if context.storage is not None:
        context.storage.forget(pending_delete)
    return {tab.history: show_history(context, run_id), **hide_question(tab)}


def chosen_run(event: gr.EventData) -> str:
    """Return the run whose button was clicked."""
    return str(event.run)
