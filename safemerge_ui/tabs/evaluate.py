"""Evaluate: the models of the run on the page side by side, their replies, and a form to measure any other models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.results import ModelResult
from core.evaluation.audit import expert_costs
from core.runs.view import RunView
from safemerge_ui import launching
from safemerge_ui.access import refuse_local_paths, require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.charts.categories import Kind, category_figure
from safemerge_ui.comparison_form import comparison_spec, form_of_comparison, lines_of
from safemerge_ui.contrasts import broken_reasons, contrasts
from safemerge_ui.page_run import FollowedTab
from safemerge_ui.tabs import measuring, replies
from safemerge_ui.views.headline import headline_view
from safemerge_ui.views.markup import empty
from safemerge_ui.views.names import model_name
from safemerge_ui.views.preflight_table import preflight_table
from safemerge_ui.views.progress import run_progress
from safemerge_ui.views.side_by_side import side_by_side
from safemerge_ui.views.verdict import cost_table
from safemerge_ui.watch import Watched

KINDS: list[tuple[str, Kind]] = [("Alignment", "alignment"), ("Over-refusal", "over_refusal")]
MEASURE_INTRO = (
    "<h2>Measure other models</h2><p>Any models on the same prompts and questions, without a merge. One reference per "
    "line: a Hub id, id@revision, a local folder, base+lora, or demo/NAME.</p>"
)


@dataclass(frozen=True)
class EvaluateTab:
    """Components of the tab.

    Attributes:
        body: holds verdict, table, chart and replies; hidden without a run.
        verdict: one sentence and three figures, once the run is over.
        reference: the model that the others are compared with.
        expert_costs: what each expert costs the merge, if the run measured it.
        kind: which rate the chart of categories shows; `models`, of which models.
        fields: how other models are measured, by the names of `comparison_form.FIELDS`.
        revision: see `FollowedTab`, as for `drawn`.
    """

    line: gr.HTML
    stop: gr.Button
    actions: gr.Row
    report: gr.Button
    download: gr.DownloadButton
    report_notice: gr.HTML
    body: gr.Column
    verdict: gr.HTML
    reference: gr.Dropdown
    table: gr.HTML
    expert_costs: gr.HTML
    kind: gr.Radio
    models: gr.Dropdown
    categories: gr.Plot
    replies: replies.RepliesPanel
    revision: gr.State
    drawn: gr.State
    references: gr.Textbox
    fields: measuring.Fields
    uploads: dict[str, gr.UploadButton]
    launch: gr.Button
    check: gr.Button
    notice: gr.HTML
    checks: gr.HTML

    @property
    def choices(self) -> list[Block]:
        """What the visitor chooses to see."""
        return [self.reference, self.kind, self.models, *self.replies.filters]

    @property
    def outputs(self) -> list[Block]:
        """What `show` fills."""
        top = [self.body, self.verdict, self.actions, self.download, self.reference, self.table, self.expert_costs]
        return [*top, self.models, self.categories, *self.replies.outputs]

    @property
    def form(self) -> set[Block]:
        """The fields that say which models to measure, and how."""
        return {self.references, *self.fields.values()}


def build() -> EvaluateTab:
    """Lay out the run, the table, the categories, the replies and the form."""
    with gr.Column(elem_classes="sm-panel"):
        gr.HTML("<h1>Evaluation</h1>")
        line = gr.HTML(_no_run(), elem_id="evaluate-line")
        with gr.Row(visible=False, elem_classes="sm-actions") as actions:
            stop_button = gr.Button("Stop", size="sm", visible=False, elem_id="evaluate-stop")
            report = gr.Button("Write the report", size="sm", elem_id="evaluate-report")
            download = gr.DownloadButton("Download report.html", size="sm", visible=False, elem_id="evaluate-download")
        report_notice = gr.HTML(elem_id="evaluate-report-notice")
    with gr.Column(visible=False, elem_classes="sm-shown") as body:
        verdict = gr.HTML(elem_id="evaluate-verdict", elem_classes="sm-panel")
        with gr.Column(elem_classes="sm-panel"):
            gr.HTML("<h2>Side by side</h2><p>All measurements of each model, on held-out prompts.</p>")
            with gr.Row(elem_classes="sm-choose"):
                reference = gr.Dropdown([], label="Compare with", elem_id="evaluate-reference", scale=0, min_width=280)
            table = gr.HTML(elem_id="evaluate-table")
            costs = gr.HTML(elem_id="evaluate-expert-costs")
        with gr.Column(elem_classes="sm-panel sm-chart"):
            gr.HTML("<h2>By category</h2><p>Rates within each category of prompts, with 95 % intervals.</p>")
            with gr.Row(elem_classes="sm-choose"):
                models = gr.Dropdown([], multiselect=True, label="Models", elem_id="evaluate-models", min_width=260)
                kind = gr.Radio(KINDS, value="alignment", label="Rate", elem_id="evaluate-kind", min_width=220)
            categories = gr.Plot(show_label=False, container=False, elem_id="evaluate-categories")
        panel = replies.build()
    run = (line, stop_button, actions, report, download, report_notice, body, verdict, reference, table, costs)
    shown = (kind, models, categories, panel, gr.State(""), gr.State(""))
    return EvaluateTab(*run, *shown, *_build_form())


def _build_form() -> tuple[Any, ...]:
    """Lay out the form; returns the components from `references` to `checks`."""
    with gr.Column(elem_classes="sm-panel"):
        gr.HTML(MEASURE_INTRO)
        with gr.Row(elem_classes=["sm-split", "sm-form"]):
            with gr.Column(min_width=290):
                references = gr.Textbox(
                    label="Models to measure",
                    lines=6,
                    placeholder="demo/aligned\ndemo/chemistry\norg/model@revision",
                    elem_id="evaluate-references",
                )
                with gr.Row(elem_classes="sm-actions"):
                    launch = gr.Button("Measure", variant="primary", size="lg", elem_id="evaluate-launch")
                    check_button = gr.Button("Check", size="lg", elem_id="evaluate-check")
                message = gr.HTML(elem_id="evaluate-notice")
            with gr.Column(min_width=290):
                fields, uploads = measuring.build_fields("evaluate")
        checks = gr.HTML(elem_id="evaluate-checks")
    return references, fields, uploads, launch, check_button, message, checks


def wire(tab: EvaluateTab, context: AppContext, run_id: gr.State) -> None:
    """Bind choices, launching and stopping."""
    choices, redraw = [run_id, *tab.choices], bind(show, context, tab)
    tab.drawn.change(redraw, choices, tab.outputs, show_progress="hidden")
    tab.reference.input(redraw, choices, tab.outputs, show_progress="hidden")
    for control in (tab.kind, tab.models):
        control.input(
            bind(draw_categories, context), [run_id, tab.kind, tab.models], tab.categories, show_progress="hidden"
        )
    replies.wire(tab.replies, context, run_id)
    measuring.wire_uploads(tab.fields, tab.uploads, context)
    tab.launch.click(bind_with_notice(measure, tab.notice, context, tab, run_id), tab.form, [tab.notice, run_id])
    tab.check.click(bind_with_notice(check, tab.notice, context, tab), tab.form, [tab.notice, tab.checks])
    reported = [tab.report_notice, tab.download]
    tab.report.click(bind_with_notice(write_report, tab.report_notice, context, tab), run_id, reported)
    tab.stop.click(bind_with_notice(stop, tab.notice, context, tab), run_id, [tab.notice, tab.stop])


def followed(tab: EvaluateTab) -> FollowedTab:
    """How the tab follows the run on the page."""
    live: list[Block] = [tab.line, tab.stop]
    return FollowedTab(tab.revision, tab.drawn, live, partial(show_live, tab), partial(show_clock, tab), content)


def content(view: RunView) -> str:
    """What table, chart and replies depend on; see `FollowedTab`."""
    return f"{len(view.models)} {view.status}"


def measure(
    context: AppContext, tab: EvaluateTab, run_id: gr.State, values: Mapping[Any, Any], profile: gr.OAuthProfile | None
) -> Updates:
    """Start the comparison that the form describes, and show it."""
    require_starter(context.settings, profile)
    return {run_id: launching.start(context, read_form(tab, values))}


def check(context: AppContext, tab: EvaluateTab, values: Mapping[Any, Any]) -> Updates:
    """Check the models that the form names; loads no weights."""
    from core.preflight.comparison_check import examine_comparison

    spec = read_form(tab, values)
    refuse_local_paths(spec, context.settings)
    return {tab.checks: preflight_table(examine_comparison(spec, context.settings).rows)}


def read_form(tab: EvaluateTab, values: Mapping[Any, Any]) -> ComparisonSpec:
    """Return the comparison that the form describes; raises `SpecError`."""
    form = {name: values[field] for name, field in tab.fields.items()}
    return comparison_spec([(reference, "model") for reference in lines_of(values[tab.references])], form)


def fill(tab: EvaluateTab, spec: ComparisonSpec) -> Updates:
    """Fill the form from a comparison; raises `SpecError`."""
    form = form_of_comparison(spec)
    references = "\n".join(compared.model for compared in spec.models)
    return {tab.references: references, **{field: form[name] for name, field in tab.fields.items()}}


def write_report(context: AppContext, tab: EvaluateTab, run_id: str) -> Updates:
    """Write the run's report and offer it for download: a copy in the folder that gradio serves files from."""
    from core.report.write_report import write_report as write_files

    report = write_files(context.watch.folder(run_id))
    return {tab.download: gr.update(value=save_file_to_cache(report.html, get_upload_folder()), visible=True)}


def stop(context: AppContext, tab: EvaluateTab, run_id: str, profile: gr.OAuthProfile | None) -> Updates:
    """Stop the run on the page."""
    return {tab.stop: launching.stop(context, run_id, profile)}


def show_live(tab: EvaluateTab, watched: Watched) -> Updates:
    """Show the progress of the run."""
    over = watched.view.over
    return {**show_clock(tab, watched), tab.stop: gr.update(visible=not over, interactive=not over)}


def show_clock(tab: EvaluateTab, watched: Watched) -> Updates:
    """Show the elapsed time of the run."""
    return {tab.line: run_progress(watched.view, watched.folder.run_id, watched.now)}


def show(context: AppContext, tab: EvaluateTab, run_id: str, *choices: Any) -> Updates:
    """Show table, chart and replies of the run on the page."""
    if not run_id:
        return {}
    reference, kind, models, *filters = choices
    folder, view, *_ = context.watch.look(run_id)
    names = [(model_name(model, view), model.name) for model in view.models]
    known = {name for _, name in names}
    reference = reference if reference in known else default_reference(view.models)
    chosen = [name for name in models or () if name in known] or default_models(view.models, reference)
    merged = next((model.alignment for model in view.models if model.role == "merged"), None)
    rows = context.replies.all_rows(folder, view)
    costs = expert_costs(view.models, rows)
    broken = broken_reasons(view.models, reference)
    tested = contrasts(context, folder, view, reference)
    return {
        tab.body: gr.update(visible=True),
        tab.verdict: headline_view(view, rows),
        tab.actions: gr.update(visible=True),
        tab.download: gr.update(visible=False),
        tab.reference: gr.update(choices=names, value=reference or None),
        tab.table: side_by_side(view, reference, tested, broken),
        tab.expert_costs: cost_table(costs, merged),
        tab.models: gr.update(choices=names, value=chosen),
        tab.categories: category_figure(view, chosen, kind),
        **replies.show_replies(context, tab.replies, folder, view, replies.Filters(*filters), reference),
    }


def draw_categories(context: AppContext, run_id: str, kind: Kind, models: list[str]) -> Any:
    """Return the chart for another choice of models or rate."""
    return category_figure(context.watch.look(run_id).view, models, kind) if run_id else gr.skip()


def default_reference(models: Sequence[ModelResult]) -> str:
    """Return the first parent, which in a run is the aligned base; without parents, the first model."""
    parents = [model for model in models if model.role == "parent"]
    return next((model.name for model in (*parents, *models)), "")


def default_models(models: Sequence[ModelResult], reference: str) -> list[str]:
    """Return the reference, the merge, and the models that were measured first; at most three."""
    merged = [model.name for model in models if model.role == "merged"]
    preferred = [reference, *merged, *(model.name for model in models)]
    chosen = list(dict.fromkeys(name for name in preferred if name))[:3]
    return [model.name for model in models if model.name in chosen]


def _no_run() -> str:
    return empty(
        "No run on this page yet.",
        "Launch a merge, open a run from the Runs tab, or measure models with the form below.",
    )
