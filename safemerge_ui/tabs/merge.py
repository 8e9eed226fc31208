"""Merge: the search settings, and the run on the page as it happens: progress, live charts, results."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import gradio as gr
from gradio.blocks import Block

from core.runs.view import RunView
from safemerge_ui import launching
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.charts.accuracy_alignment import accuracy_alignment_figure
from safemerge_ui.charts.front import front_figure
from safemerge_ui.charts.losses import losses_figure
from safemerge_ui.form import Form
from safemerge_ui.page_run import FollowedTab
from safemerge_ui.tabs import publish_panel, saving
from safemerge_ui.tabs.merge_fields import build_fields
from safemerge_ui.tabs.publish_panel import PublishPanel
from safemerge_ui.tabs.saving import SavePanel
from safemerge_ui.views.alpha import alpha_view
from safemerge_ui.views.headline import headline_view
from safemerge_ui.views.markup import notice
from safemerge_ui.views.progress import ending, no_run, run_line, stepper
from safemerge_ui.views.results import best_recipe, best_so_far, files_line, result_table
from safemerge_ui.watch import Watched

ALPHA_INTRO = (
    "<h2>Try another alpha</h2><p>Alpha is the weight of the domain loss. Both losses of every candidate are stored, "
    "so another alpha ranks the same candidates again, without a new search.</p>"
)
PLANE_INTRO = (
    "<h2>Accuracy and alignment</h2><p>Up and to the right is better. Open circles are estimates from the scoring "
    "pass. Filled marks are measured, with 95 % intervals. Colors run from the first generation (blue) to the "
    "last (orange).</p>"
)


@dataclass(frozen=True)
class MergeTab:
    """Components of the tab.

    Attributes:
        fields: this tab's part of the form.
        line: the run with its elapsed time.
        verdict: one sentence and three figures, once the run is over.
        body: holds all charts and results; hidden without a run.
        explorer: what another alpha would select.
        revision: see `FollowedTab`, as for `drawn`.
    """

    fields: dict[str, gr.components.Component]
    launch: gr.Button
    stop: gr.Button
    resume: gr.Button
    notice: gr.HTML
    line: gr.HTML
    steps: gr.HTML
    ending: gr.HTML
    verdict: gr.HTML
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
    publishing: PublishPanel
    revision: gr.State
    drawn: gr.State

    @property
    def live(self) -> list[Block]:
        """What changes with every event of the run."""
        return [self.line, self.steps, self.ending, self.stop, self.resume]

    @property
    def outputs(self) -> list[Block]:
        """What `show` fills."""
        return [self.verdict, self.plane, self.losses, self.front, self.best, self.results, self.files, self.body]


def build(form: Form, on_space: bool = False) -> MergeTab:
    """Lay out settings on the left and the run on the right."""
    with gr.Row(elem_classes="sm-merge"):
        with gr.Column(scale=1, min_width=300, elem_classes="sm-panel sm-settings"):
            fields = build_fields(form)
            with gr.Row(elem_classes="sm-actions"):
                launch = gr.Button("Launch", variant="primary", size="lg", elem_id="merge-launch")
                stop_button = gr.Button("Stop", size="lg", interactive=False, elem_id="merge-stop")
                resume = gr.Button("Resume", size="lg", visible=False, elem_id="merge-resume")
            message = gr.HTML(elem_id="merge-notice")
        with gr.Column(scale=3, min_width=300, elem_classes="sm-shown"):
            with gr.Column(elem_classes="sm-panel"):
                line = gr.HTML(no_run(), elem_id="merge-line")
                steps = gr.HTML(elem_id="merge-steps")
                end = gr.HTML(elem_id="merge-ending")
            with gr.Column(visible=False) as body:
                verdict = gr.HTML(elem_id="merge-verdict", elem_classes="sm-panel")
                with gr.Column(elem_classes="sm-panel sm-chart"):
                    gr.HTML(PLANE_INTRO)
                    plane = gr.Plot(show_label=False, container=False, elem_id="merge-plane")
                with gr.Column(elem_classes="sm-panel"):
                    gr.HTML("<h2>Results</h2>")
                    results = gr.HTML(_no_results(), elem_id="merge-results")
                    files = gr.HTML()
                with gr.Row(equal_height=True):
                    with gr.Column(scale=3, min_width=300, elem_classes="sm-panel sm-chart"):
                        gr.HTML("<h2>Losses</h2><p>What the search minimizes, candidate by candidate.</p>")
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
                publishing = publish_panel.build(on_space)
    run = (message, line, steps, end, verdict, plane, losses, front, best, results, files, body)
    panels = (explorer, save_panel, publishing)
    return MergeTab(fields, launch, stop_button, resume, *run, alpha, *panels, gr.State(""), gr.State(""))


def wire(tab: MergeTab, context: AppContext, run_id: gr.State) -> None:
    """Bind what concerns this tab alone."""
    tab.stop.click(bind_with_notice(stop, tab.notice, context, tab), run_id, [tab.notice, tab.stop])
    tab.drawn.change(bind(show, context, tab), run_id, tab.outputs, show_progress="hidden")
    explored = [tab.explorer, tab.saving.number]
    for event in (tab.alpha.change, tab.best.change):
        event(bind(explore, context, tab), [run_id, tab.alpha], explored, show_progress="hidden")
    tab.drawn.change(bind(recount, context, tab), [run_id, tab.alpha], tab.explorer, show_progress="hidden")
    saving.wire(tab.saving, context, run_id)
    publish_panel.wire(tab.publishing, context, run_id, tab.drawn)


def followed(tab: MergeTab) -> FollowedTab:
    """How the tab follows the run on the page."""
    return FollowedTab(tab.revision, tab.drawn, tab.live, partial(show_live, tab), partial(show_clock, tab), content)


def content(view: RunView) -> str:
    """What charts and results depend on; see `FollowedTab`."""
    counts = (len(view.candidates), len(view.measured), len(view.models))
    return f"{bool(view.spec)} {counts} {view.over} {view.exported is not None} {view.result is not None}"


def stop(context: AppContext, tab: MergeTab, run_id: str, profile: gr.OAuthProfile | None) -> Updates:
    """Stop the run on the page."""
    return {tab.stop: launching.stop(context, run_id, profile)}


def explore(context: AppContext, tab: MergeTab, run_id: str, alpha: float) -> Updates:
    """Show which candidate of the run another alpha selects, and offer to save it."""
    if not run_id:
        return {}
    view = context.watch.look(run_id).view
    return {tab.explorer: alpha_view(view, alpha), tab.saving.number: saving.number_for(view, alpha)}


def recount(context: AppContext, tab: MergeTab, run_id: str, alpha: float) -> Updates:
    """Show the front of the candidates so far, which grows also while the best one stays."""
    return {tab.explorer: alpha_view(context.watch.look(run_id).view, alpha)} if run_id else {}


def show_live(tab: MergeTab, watched: Watched) -> Updates:
    """Show the progress of the run."""
    view = watched.view
    return {
        **show_clock(tab, watched),
        tab.steps: stepper(view),
        tab.ending: ending(view),
        tab.stop: gr.update(interactive=not view.over),
        tab.resume: gr.update(visible=view.status in ("failed", "cancelled") and not view.is_comparison),
    }


def show_clock(tab: MergeTab, watched: Watched) -> Updates:
    """Show the elapsed time of the run."""
    return {tab.line: run_line(watched.view, watched.folder.run_id, watched.now)}


def show(context: AppContext, tab: MergeTab, run_id: str) -> Updates:
    """Show charts and results of the run on the page."""
    if not run_id:
        return {}
    folder, view, *_ = context.watch.look(run_id)
    return {
        tab.verdict: headline_view(view, context.replies.all_rows(folder, view)),
        tab.plane: accuracy_alignment_figure(view),
        tab.losses: losses_figure(view),
        tab.front: front_figure(view),
        tab.best: best_so_far(view),
        tab.results: result_table(view) or _no_results(),
        tab.files: files_line(folder.path, view),
        tab.body: gr.update(visible=True),
    }


def _no_results() -> str:
    return notice(
        "Nothing measured yet.", "Parents are measured before the search, baselines and the merge after it.", "plain"
    )
