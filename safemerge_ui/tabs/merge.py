"""Merge: how weights are searched, and the run on this page as it happens: progress, live charts, results."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind, bind_with_notice
from safemerge_ui.charts.front import front_figure
from safemerge_ui.charts.losses import losses_figure
from safemerge_ui.charts.plane import plane_figure
from safemerge_ui.form import Form
from safemerge_ui.launching import stop
from safemerge_ui.tabs import saving
from safemerge_ui.tabs.merge_fields import build_fields
from safemerge_ui.tabs.saving import SavePanel
from safemerge_ui.views.alpha import alpha_view
from safemerge_ui.views.markup import notice
from safemerge_ui.views.progress import ending, no_run, run_line, stepper
from safemerge_ui.views.results import best_recipe, best_so_far, files_line, result_table
from safemerge_ui.watch import Watched

ALPHA_INTRO = (
    "<h2>Another alpha</h2><p>Both losses of every candidate are kept, so another weight of the skill is a new "
    "ranking, not a new search.</p>"
)
PLANE_INTRO = (
    "<h2>Skill against alignment</h2><p>Up and to the right is better. Open circles are estimates from the scoring "
    "pass, filled marks are measured, with 95 % intervals. Colour runs from early (blue) to late (orange).</p>"
)


@dataclass(frozen=True)
class MergeTab:
    """Components of the tab; `fields` is this tab's part of the form."""

    fields: dict[str, gr.components.Component]
    launch: gr.Button
    stop: gr.Button
    notice: gr.HTML
    line: gr.HTML
    steps: gr.HTML
    ending: gr.HTML
    plane: gr.Plot
    losses: gr.Plot
    front: gr.Plot
    best: gr.HTML
    results: gr.HTML
    files: gr.HTML
    body: gr.Column
    alpha: gr.Slider
    explorer: gr.HTML
    saving: SavePanel

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `show_run` fills."""
        return [
            self.line,
            self.steps,
            self.ending,
            self.plane,
            self.losses,
            self.front,
            self.best,
            self.results,
            self.files,
            self.stop,
            self.body,
        ]


class MergeShown(NamedTuple):
    """Values for `MergeTab.outputs`."""

    line: Any
    steps: Any
    ending: Any
    plane: Any
    losses: Any
    front: Any
    best: Any
    results: Any
    files: Any
    stop: Any
    body: Any


def build(form: Form) -> MergeTab:
    """Lay out settings on the left and the run on the right."""
    with gr.Row(elem_classes="sm-merge"):
        with gr.Column(scale=1, min_width=300, elem_classes="sm-panel sm-settings"):
            fields = build_fields(form)
            with gr.Row(elem_classes="sm-actions"):
                launch = gr.Button("Launch", variant="primary", size="lg", elem_id="merge-launch")
                stop = gr.Button("Stop", size="lg", interactive=False, elem_id="merge-stop")
            message = gr.HTML(elem_id="merge-notice")
        with gr.Column(scale=3, min_width=300, elem_classes="sm-shown"):
            with gr.Column(elem_classes="sm-panel"):
                line = gr.HTML(no_run(), elem_id="merge-line")
                steps = gr.HTML(elem_id="merge-steps")
                end = gr.HTML(elem_id="merge-ending")
            with gr.Column(visible=False) as body:
                with gr.Column(elem_classes="sm-panel sm-chart"):
                    gr.HTML(PLANE_INTRO)
                    plane = gr.Plot(show_label=False, container=False, elem_id="merge-plane")
                with gr.Column(elem_classes="sm-panel"):
                    gr.HTML("<h2>Results</h2>")
                    results = gr.HTML(_no_results(), elem_id="merge-results")
                    files = gr.HTML()
                with gr.Row(equal_height=True):
                    with gr.Column(scale=3, min_width=300, elem_classes="sm-panel sm-chart"):
                        gr.HTML("<h2>Losses</h2><p>What the search minimises, candidate by candidate.</p>")
                        losses = gr.Plot(show_label=False, container=False)
                    with gr.Column(scale=2, min_width=280, elem_classes="sm-panel"):
                        gr.HTML("<h2>Best recipe so far</h2>")
                        best = gr.HTML(best_recipe(None), elem_id="merge-best")
                with gr.Column(elem_classes="sm-panel"):
                    gr.HTML(ALPHA_INTRO)
                    front = gr.Plot(show_label=False, container=False, elem_id="merge-front")
                    alpha = gr.Slider(0, 2, form["alpha"], step=0.05, label="Alpha", elem_id="merge-alpha")
                    save_panel = saving.build()
                    explorer = gr.HTML(elem_id="merge-explorer")
    shown = (message, line, steps, end, plane, losses, front, best, results, files, body)
    return MergeTab(fields, launch, stop, *shown, alpha, explorer, save_panel)


def wire(tab: MergeTab, context: AppContext, run_id: gr.State) -> None:
    """Bind what concerns this tab alone."""
    tab.stop.click(bind_with_notice(stop, context, outputs=1), run_id, [tab.notice, tab.stop])
    for happened in (tab.alpha.change, tab.best.change):
        happened(bind(explore, context), [run_id, tab.alpha], [tab.explorer, tab.saving.number], show_progress="hidden")
    saving.wire(tab.saving, context, run_id)


def explore(context: AppContext, run_id: str, alpha: float) -> Any:
    """Which candidate of the run on this page would win with `alpha`, and the number to save it by."""
    if not run_id:
        return gr.skip()
    view = context.watch.look(run_id).view
    return alpha_view(view, alpha), saving.number_for(view, alpha)


def show_run(watched: Watched) -> MergeShown:
    """The tab for a run as of now."""
    folder, view, _ = watched
    return MergeShown(
        line=run_line(view, folder.run_id, time.time()),
        steps=stepper(view),
        ending=ending(view),
        plane=plane_figure(view),
        losses=losses_figure(view),
        front=front_figure(view),
        best=best_so_far(view),
        results=result_table(view) or _no_results(),
        files=files_line(folder.path, view),
        stop=gr.update(interactive=not view.over),
        body=gr.update(visible=True),
    )


def show_clock(watched: Watched) -> MergeShown:
    """Nothing but the elapsed time, for a moment without news."""
    line = run_line(watched.view, watched.folder.run_id, time.time())
    return MergeShown(line, *[gr.skip()] * (len(MergeShown._fields) - 1))


def _no_results() -> str:
    return notice("Nothing measured yet.", "Parents come first, baselines and the merge after the search.", "plain")
