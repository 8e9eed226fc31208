"""Save candidate: a part of the Merge tab that saves any candidate of the run on the page as a model.

A worker process does the work (`core.jobs.export_worker`); the page follows its record, also after a reload.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.errors import RunError
from core.jobs.export_worker import start_export
from core.runs.candidates import best_candidate, find_candidate
from core.runs.exports import ExportStatus, cancel_export, latest_export
from core.runs.view import RunView
from safemerge_ui.access import refuse_local_paths, require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.errors import RunIsBusy
from safemerge_ui.launching import refuse_without_workers
from safemerge_ui.views.alpha import run_beta
from safemerge_ui.views.export_status import export_view

POLL_S = 1.0
_INFO = (
    "Alpha's choice among the candidates scored on all pairs, or any other. A worker process loads the pool and merges "
    "it again."
)


@dataclass(frozen=True)
class SavePanel:
    """Components of the panel; `number` is that of `candidates.jsonl`, from 0."""

    number: gr.Number
    save: gr.Button
    cancel: gr.Button
    notice: gr.HTML
    saved: gr.HTML
    timer: gr.Timer


def build() -> SavePanel:
    """Lay out the number, the buttons and the state of the last export."""
    with gr.Row(elem_classes="sm-actions"):
        number = gr.Number(label="Candidate", info=_INFO, precision=0, min_width=200, elem_id="save-number")
        save = gr.Button("Save candidate", elem_id="save-candidate")
        cancel = gr.Button("Cancel", visible=False, elem_id="save-cancel")
    notice, saved = gr.HTML(elem_id="save-notice"), gr.HTML(elem_id="save-saved")
    return SavePanel(number, save, cancel, notice, saved, gr.Timer(POLL_S, active=False))


def wire(panel: SavePanel, context: AppContext, run_id: gr.State) -> None:
    """Bind the buttons, and follow the worker while one is at work."""
    followed = [panel.saved, panel.cancel, panel.timer]
    outputs = [panel.notice, *followed]
    panel.save.click(bind_with_notice(save, panel.notice, context, panel), [run_id, panel.number], outputs)
    panel.cancel.click(bind_with_notice(cancel, panel.notice, context, panel), run_id, outputs)
    panel.timer.tick(bind(follow, context, panel), run_id, followed, show_progress="hidden", concurrency_limit=8)
    run_id.change(bind_with_notice(follow, panel.notice, context, panel), run_id, outputs, show_progress="hidden")


def number_for(view: RunView, alpha: float) -> Any:
    """The number on the page of the candidate that `alpha` ranks first; None if there is no such candidate."""
    own = [event for event in view.candidates if event.search == view.main_search]
    return best_candidate(own, alpha, run_beta(view))


def save(
    context: AppContext, panel: SavePanel, run_id: str, number: float | None, profile: gr.OAuthProfile | None
) -> Updates:
    """Start a worker that merges a candidate of the run on this page again and saves it into the run's folder.

    Raises:
        SafeMergeError: the visitor may not start work, a job is at work, or the candidate is unavailable.
    """
    require_starter(context.settings, profile)
    if not run_id or number is None:
        raise RunError(
            "No candidate is named.", "Open a run that has scored some, and enter the number of one.", code="no-number"
        )
    refuse_without_workers(context)
    run = context.watch.folder(run_id)
    if busy := context.watch.busy_run():
        raise RunIsBusy(busy)
    request = find_candidate(run, int(number))
    refuse_local_paths(request.spec, context.settings)
    start_export(request, context.settings)
    return follow(context, panel, run_id)


def cancel(context: AppContext, panel: SavePanel, run_id: str, profile: gr.OAuthProfile | None) -> Updates:
    """Cancel the export of the run on this page."""
    require_starter(context.settings, profile)
    cancel_export(context.watch.folder(run_id))
    return follow(context, panel, run_id)


def follow(context: AppContext, panel: SavePanel, run_id: str) -> Updates:
    """The export that was started last for the run on this page; follows it until it is over."""
    status: ExportStatus | None = latest_export(context.watch.folder(run_id)) if run_id else None
    running = status is not None and not status.over
    return {
        panel.saved: "" if status is None else export_view(status),
        panel.cancel: gr.update(visible=running),
        panel.timer: gr.Timer(active=running),
    }
