"""Save candidate: a part of the Merge tab that turns any candidate of the run on the page into a model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.errors import RunError
from core.runs.candidates import best_number, find_candidate
from core.runs.view import RunView
from safemerge_ui.access import refuse_local_paths, require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.errors import RunIsBusy
from safemerge_ui.views.alpha import saved_view

_LOG = logging.getLogger(__name__)
_INFO = "Of those scored on all pairs, alpha's choice; or any other. It is merged again, which loads the pool."


@dataclass(frozen=True)
class SavePanel:
    """Components of the panel; `number` counts from 1, as the page's tables do."""

    number: gr.Number
    save: gr.Button
    notice: gr.HTML
    saved: gr.HTML


def build() -> SavePanel:
    """Lay out the number, the button and what came of it."""
    with gr.Row(elem_classes="sm-actions"):
        number = gr.Number(label="Candidate", info=_INFO, precision=0, min_width=200, elem_id="save-number")
        save = gr.Button("Save candidate", elem_id="save-candidate")
    return SavePanel(number, save, gr.HTML(elem_id="save-notice"), gr.HTML(elem_id="save-saved"))


def wire(panel: SavePanel, context: AppContext, run_id: gr.State) -> None:
    """Bind the button; one candidate at a time is saved, whoever asks."""
    panel.save.click(
        bind_with_notice(save, panel.notice, context, panel),
        [run_id, panel.number],
        [panel.notice, panel.saved],
        concurrency_limit=1,
        concurrency_id="save",
    )
    run_id.change(bind(forget), None, [panel.notice, panel.saved], show_progress="hidden")


def save(
    context: AppContext, panel: SavePanel, run_id: str, number: float | None, profile: gr.OAuthProfile | None
) -> Updates:
    """Save a candidate of the run on the page, and say where."""
    return {panel.saved: save_numbered(context, run_id, number, profile)}


def number_for(view: RunView, alpha: float) -> Any:
    """The number on the page of the candidate to save for `alpha`; none where there is no such candidate."""
    best = best_number([one for one in view.candidates if one.search == view.main_search], alpha)
    return None if best is None else best + 1


def save_numbered(context: AppContext, run_id: str, number: float | None, profile: gr.OAuthProfile | None) -> str:
    """Merge a candidate of the run on this page again, save it into the run's folder, and say where.

    Raises:
        SafeMergeError: the visitor may not start work, a run is at work, or the candidate cannot be had.
    """
    require_starter(context.settings, profile)
    if not run_id or number is None:
        raise RunError("No candidate is named.", "Open a run that has scored some, and give one's number.")
    run = context.watch.folder(run_id)
    if busy := context.watch.busy_run():
        raise RunIsBusy(busy)
    wanted = find_candidate(run, int(number) - 1)
    refuse_local_paths(wanted.spec, context.settings)
    from core.jobs.reexport import save_candidate

    sha256 = save_candidate(wanted, context.settings, _LOG.info)
    return saved_view(int(number), wanted.target, sha256)


def forget() -> tuple[str, str]:
    """Another run has come onto the page: what was said of the last one goes."""
    return "", ""
