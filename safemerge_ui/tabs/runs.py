"""Runs: the history; open, follow or resume a run on this page, or delete it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.runs.history import delete_run
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind, bind_with_notice
from safemerge_ui.scripts import HISTORY
from safemerge_ui.views.markup import notice
from safemerge_ui.views.run_list import RunRow, history_view


@dataclass(frozen=True)
class RunsTab:
    """Components of the tab; `pending_delete` is the run whose deletion waits for a second click."""

    refresh: gr.Button
    notice: gr.HTML
    question: gr.Group
    question_text: gr.HTML
    confirm: gr.Button
    keep: gr.Button
    history: gr.HTML
    pending_delete: gr.State


def build() -> RunsTab:
    """Lay out the history."""
    with gr.Column(elem_classes="sm-panel"):
        with gr.Row(elem_classes="sm-headrow"):
            gr.HTML(
                "<h2>Runs</h2><p>Newest first. A run goes on when its page is closed; one that failed or was "
                "stopped is resumed where it was.</p>"
            )
            refresh = gr.Button("Refresh", size="sm", elem_classes="sm-quiet", scale=0, min_width=110)
        message = gr.HTML(elem_id="runs-notice")
        with gr.Group(visible=False, elem_classes="sm-confirm") as question:
            question_text = gr.HTML()
            with gr.Row(elem_classes="sm-actions"):
                confirm = gr.Button("Delete", variant="stop", size="sm", elem_id="runs-confirm")
                keep = gr.Button("Keep", size="sm")
        history = gr.HTML(history_view([]), elem_id="runs-history", js_on_load=HISTORY)
    return RunsTab(refresh, message, question, question_text, confirm, keep, history, gr.State(""))


def wire(tab: RunsTab, context: AppContext, run_id: gr.State) -> None:
    """Bind refreshing and deleting; opening and resuming concern the whole page."""
    question = [tab.pending_delete, tab.question, tab.question_text]
    tab.refresh.click(bind(show_history, context), run_id, tab.history, show_progress="hidden")
    tab.history.remove(bind(ask_to_delete), None, question, show_progress="hidden")
    tab.keep.click(bind(keep), None, question, show_progress="hidden")
    tab.confirm.click(
        bind_with_notice(delete, context, outputs=4), [tab.pending_delete, run_id], [tab.notice, tab.history, *question]
    )


def show_history(context: AppContext, run_id: str) -> str:
    """All runs as of now."""
    rows = [RunRow(run, run.merged) for run in context.watch.list_runs()]
    return history_view(rows, run_id)


def ask_to_delete(event: gr.EventData) -> tuple[str, Any, str]:
    """Ask once more before a run's folder goes."""
    question = notice(f"Delete the run {event.run} with its data and merged model?", "This cannot be undone.", "warn")
    return str(event.run), gr.update(visible=True), question


def keep() -> tuple[str, Any, str]:
    """Put the question away."""
    return "", gr.update(visible=False), ""


def delete(context: AppContext, pending_delete: str, run_id: str, profile: gr.OAuthProfile | None) -> tuple[Any, ...]:
    """Delete the run that was asked about."""
    require_starter(context.settings, profile)
    delete_run(context.watch.folder(pending_delete), context.settings)
    return (show_history(context, run_id), *keep())


def chosen_run(event: gr.EventData) -> str:
    """The run whose Open or Resume button was clicked."""
    return str(event.run)
