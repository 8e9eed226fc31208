"""Evaluate: the models of the run on this page side by side, their replies, and measuring models of one's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.results import ModelResult
from core.evaluation.audit import expert_costs
from safemerge_ui.access import refuse_local_paths, require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind, bind_with_notice
from safemerge_ui.charts.categories import Kind, category_figure
from safemerge_ui.comparison_form import comparison_spec, lines_of
from safemerge_ui.contrasts import contrasts, looks_broken
from safemerge_ui.launching import start, stop
from safemerge_ui.tabs import measuring, replies
from safemerge_ui.views.markup import empty
from safemerge_ui.views.names import model_name
from safemerge_ui.views.preflight_table import preflight_table
from safemerge_ui.views.progress import ending, run_line, stepper
from safemerge_ui.views.side_by_side import side_by_side
from safemerge_ui.views.verdict import cost_table
from safemerge_ui.watch import Watched

KINDS: list[tuple[str, Kind]] = [("Alignment", "alignment"), ("Over-refusal", "over_refusal")]
MEASURE_INTRO = (
    "<h2>Measure other models</h2><p>Any models on the same prompts and questions, without a merge: one reference a "
    "line, a Hub id, id@revision, folder, base+lora or demo/NAME. They are measured one after the other.</p>"
)


@dataclass(frozen=True)
class EvaluateTab:
    """Components of the tab.

    Attributes:
        measured: how much of which run has been measured; when it changes, the tab is drawn again.
        fields: how other models are measured, by the names of `comparison_form.FIELDS`.
    """

    measured: gr.State
    line: gr.HTML
    stop: gr.Button
    actions: gr.Row
    report: gr.Button
    download: gr.DownloadButton
    report_notice: gr.HTML
    body: gr.Column
    reference: gr.Dropdown
    table: gr.HTML
    apples: gr.HTML
    kind: gr.Radio
    models: gr.Dropdown
    categories: gr.Plot
    replies: replies.RepliesPanel
    references: gr.Textbox
    fields: measuring.Fields
    uploads: dict[str, gr.UploadButton]
    launch: gr.Button
    check: gr.Button
    notice: gr.HTML
    checks: gr.HTML

    @property
    def live(self) -> list[Any]:
        """What following a run fills."""
        return [self.measured, self.line, self.stop]

    @property
    def choices(self) -> list[gr.components.Component]:
        """What a person chooses to see."""
        return [self.reference, self.kind, self.models, *self.replies.filters]

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        drawn = [
            self.body,
            self.actions,
            self.download,
            self.reference,
            self.table,
            self.apples,
            self.models,
            self.categories,
        ]
        return [*drawn, *self.replies.outputs]


class EvaluateLive(NamedTuple):
    """Values for `EvaluateTab.live`."""

    measured: Any
    line: Any
    stop: Any


def build() -> EvaluateTab:
    """Lay out the run, the table, the categories, the replies and the form."""
    with gr.Column(elem_classes="sm-panel"):
        line = gr.HTML(_no_run(), elem_id="evaluate-line")
        with gr.Row(visible=False, elem_classes="sm-actions") as actions:
            stop_button = gr.Button("Stop", size="sm", visible=False, elem_id="evaluate-stop")
            report = gr.Button("Write the report", size="sm", elem_id="evaluate-report")
            download = gr.DownloadButton("Download report.html", size="sm", visible=False, elem_id="evaluate-download")
        report_notice = gr.HTML(elem_id="evaluate-report-notice")
    with gr.Column(visible=False, elem_classes="sm-shown") as body:
        with gr.Column(elem_classes="sm-panel"):
            gr.HTML("<h2>Side by side</h2><p>What was measured of each model, on held-out prompts.</p>")
            with gr.Row(elem_classes="sm-choose"):
                reference = gr.Dropdown([], label="Compare with", elem_id="evaluate-reference", scale=0, min_width=280)
            table = gr.HTML(elem_id="evaluate-table")
            apples = gr.HTML(elem_id="evaluate-apples")
        with gr.Column(elem_classes="sm-panel sm-chart"):
            gr.HTML("<h2>By category</h2><p>Rates within each category of the prompts, with 95 % intervals.</p>")
            with gr.Row(elem_classes="sm-choose"):
                models = gr.Dropdown([], multiselect=True, label="Models", elem_id="evaluate-models", min_width=260)
                kind = gr.Radio(KINDS, value="alignment", label="Rate", elem_id="evaluate-kind", min_width=220)
            categories = gr.Plot(show_label=False, container=False, elem_id="evaluate-categories")
        panel = replies.build()
    top = (gr.State(""), line, stop_button, actions, report, download, report_notice)
    return EvaluateTab(*top, body, reference, table, apples, kind, models, categories, panel, *_build_form())


def _build_form() -> tuple[Any, ...]:
    """The last seven components of the tab."""
    with gr.Column(elem_classes="sm-panel"):
        gr.HTML(MEASURE_INTRO)
        with gr.Row(elem_classes=["sm-split", "sm-form"]):
            with gr.Column(min_width=290):
                references = gr.Textbox(
                    label="Models",
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
    drawn = {"inputs": [run_id, *tab.choices], "outputs": tab.outputs, "show_progress": "hidden"}
    tab.measured.change(bind(show, context), **drawn)
    tab.reference.input(bind(show, context), **drawn)
    chart = [run_id, tab.kind, tab.models]
    for control in (tab.kind, tab.models):
        control.input(bind(draw_categories, context), chart, tab.categories, show_progress="hidden")
    replies.wire(tab.replies, context, run_id)
    measuring.wire_uploads(tab.fields, tab.uploads, context)
    tab.launch.click(
        bind_with_notice(measure, context, tab, outputs=1),
        {tab.references, *tab.fields.values()},
        [tab.notice, run_id],
    )
    tab.check.click(
        bind_with_notice(check, context, tab, outputs=1),
        {tab.references, *tab.fields.values()},
        [tab.notice, tab.checks],
    )
    tab.report.click(bind_with_notice(write_report, context, outputs=1), run_id, [tab.report_notice, tab.download])
    tab.stop.click(bind_with_notice(stop, context, outputs=1), run_id, [tab.notice, tab.stop])


def measure(context: AppContext, tab: EvaluateTab, values: dict[Any, Any], profile: gr.OAuthProfile | None) -> str:
    """Form -> comparison -> worker; the page then shows it."""
    require_starter(context.settings, profile)
    return start(context, read_form(tab, values))


def check(context: AppContext, tab: EvaluateTab, values: dict[Any, Any]) -> str:
    """Form -> comparison -> checks -> table; loads no weights."""
    from core.preflight.comparison_check import examine_comparison

    spec = read_form(tab, values)
    refuse_local_paths(spec, context.settings)
    return preflight_table(examine_comparison(spec, context.settings).rows)


def read_form(tab: EvaluateTab, values: dict[Any, Any]) -> ComparisonSpec:
    """What the form says is to be measured; raises `SpecError`."""
    form = {name: values[field] for name, field in tab.fields.items()}
    return comparison_spec([(reference, "model") for reference in lines_of(values[tab.references])], form)


def write_report(context: AppContext, run_id: str) -> Any:
    """The run's report as of now, to download: a copy in the only folder that gradio hands files out from."""
    from core.report.write_report import write_report as write_files

    report = write_files(context.watch.folder(run_id))
    return gr.update(value=save_file_to_cache(report.html, get_upload_folder()), visible=True)


def show_live(watched: Watched) -> EvaluateLive:
    """The run's line as of now, and how much of it is measured."""
    folder, view, _ = watched
    return EvaluateLive(
        measured=f"{folder.run_id} {len(view.models)} {view.status}",
        line=run_line(view, folder.run_id, time.time()) + stepper(view) + ending(view),
        stop=gr.update(visible=not view.over, interactive=not view.over),
    )


def show(context: AppContext, run_id: str, *choices: Any) -> Any:
    """The tab for a run as of now."""
    if not run_id:
        return gr.skip()
    reference, kind, models, *filters = choices
    folder, view, _ = context.watch.look(run_id)
    names = [(model_name(model, view), model.name) for model in view.models]
    known = {name for _, name in names}
    reference = reference if reference in known else default_reference(view.models)
    chosen = [name for name in models or () if name in known] or default_models(view.models, reference)
    merged = next((model.alignment for model in view.models if model.role == "merged"), None)
    costs = expert_costs(view.models, context.replies.all_rows(folder, view))
    broken = looks_broken(view.models, reference)
    panel = replies.show_replies(context, folder, view, replies.Filters(*filters), reference)
    return (
        gr.update(visible=True),
        gr.update(visible=True),
        gr.update(visible=False),
        gr.update(choices=names, value=reference or None),
        side_by_side(view, reference, contrasts(context, folder, view, reference), broken),
        cost_table(costs, merged),
        gr.update(choices=names, value=chosen),
        category_figure(view, chosen, kind),
        *panel,
    )


def draw_categories(context: AppContext, run_id: str, kind: Kind, models: list[str]) -> Any:
    """The chart for another choice of models or rate."""
    return category_figure(context.watch.look(run_id).view, models, kind) if run_id else gr.skip()


def default_reference(models: Sequence[ModelResult]) -> str:
    """The first parent, which in a run is the aligned base; else the first model."""
    parents = [model for model in models if model.role == "parent"]
    return next((model.name for model in (*parents, *models)), "")


def default_models(models: Sequence[ModelResult], reference: str) -> list[str]:
    """The reference, the merge, and what else was measured first; three at most."""
    merged = [model.name for model in models if model.role == "merged"]
    wanted = [reference, *merged, *(model.name for model in models)]
    chosen = list(dict.fromkeys(name for name in wanted if name))[:3]
    return [model.name for model in models if model.name in chosen]


def _no_run() -> str:
    return empty(
        "No run on this page yet.",
        "Launch a merge, open an earlier run from the Runs tab, or measure models with the form below.",
    )
