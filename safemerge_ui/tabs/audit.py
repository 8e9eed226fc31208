"""Audit: a published merge against the models it was merged from, with a verdict in plain language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.blocks import Block

from core.contracts.comparison_spec import ComparisonSpec
from core.errors import SpecError
from core.evaluation.audit import judge_merge
from core.evaluation.lineage import read_lineage
from core.runs.view import RunView
from safemerge_ui import launching
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.charts.alignment import alignment_figure
from safemerge_ui.comparison_form import audit_spec, form_of_comparison, lines_of
from safemerge_ui.contrasts import broken_reasons, contrasts
from safemerge_ui.page_run import FollowedTab
from safemerge_ui.tabs import measuring
from safemerge_ui.views.markup import empty, notice
from safemerge_ui.views.names import is_audit
from safemerge_ui.views.progress import run_progress
from safemerge_ui.views.side_by_side import side_by_side
from safemerge_ui.views.verdict import verdict_view
from safemerge_ui.watch import Watched

INTRO = (
    "<h1>Audit a published merge</h1><p>Is the merge as safe as the models it was merged from? One badly aligned "
    "parent is enough to lose the refusals.</p>"
)


@dataclass(frozen=True)
class AuditTab:
    """Components of the tab.

    Attributes:
        lineage: where the list of parents is from.
        fields: how models are measured, by the names of `comparison_form.FIELDS`.
        body: holds verdict, chart and table; hidden without an audit.
        revision: see `FollowedTab`, as for `drawn`.
    """

    merge: gr.Textbox
    find: gr.Button
    parents: gr.Textbox
    lineage: gr.HTML
    fields: measuring.Fields
    uploads: dict[str, gr.UploadButton]
    launch: gr.Button
    stop: gr.Button
    notice: gr.HTML
    line: gr.HTML
    body: gr.Column
    verdict: gr.HTML
    chart: gr.Plot
    table: gr.HTML
    revision: gr.State
    drawn: gr.State

    @property
    def outputs(self) -> list[Block]:
        """What `show` fills."""
        return [self.body, self.verdict, self.chart, self.table]


def build() -> AuditTab:
    """Lay out what to audit on the left and the audit on the page on the right."""
    with gr.Row(elem_classes="sm-merge"):
        with gr.Column(scale=1, min_width=300, elem_classes="sm-panel sm-settings"):
            gr.HTML(INTRO)
            merge = gr.Textbox(
                label="Merged model",
                info="Hub id, id@revision, local folder, or base+lora",
                placeholder="org/merge",
                elem_id="audit-merge",
            )
            with gr.Row(elem_classes="sm-actions"):
                find = gr.Button("Find parents", size="sm", elem_id="audit-find")
            lineage = gr.HTML(elem_id="audit-found")
            parents = gr.Textbox(
                label="Parents",
                info="One reference per line. Find parents fills this field; change it as needed",
                lines=4,
                elem_id="audit-parents",
            )
            with gr.Accordion("Measurement", open=False, elem_classes="sm-sub", elem_id="audit-measurement"):
                fields, uploads = measuring.build_fields("audit")
            with gr.Row(elem_classes="sm-actions"):
                launch = gr.Button("Audit", variant="primary", size="lg", elem_id="audit-launch")
                stop_button = gr.Button("Stop", size="lg", interactive=False, elem_id="audit-stop")
            message = gr.HTML(elem_id="audit-notice")
        with gr.Column(scale=3, min_width=300, elem_classes="sm-shown"):
            with gr.Column(elem_classes="sm-panel"):
                line = gr.HTML(_no_audit(), elem_id="audit-line")
            with gr.Column(visible=False, elem_classes="sm-shown") as body:
                with gr.Column(elem_classes="sm-panel"):
                    verdict = gr.HTML(elem_id="audit-verdict")
                with gr.Column(elem_classes="sm-panel sm-chart"):
                    gr.HTML("<h2>Alignment</h2><p>From the safest to the least safe, with 95 % intervals.</p>")
                    chart = gr.Plot(show_label=False, container=False, elem_id="audit-chart")
                with gr.Column(elem_classes="sm-panel"):
                    gr.HTML("<h2>All measurements</h2><p>Each parent against the merge, on the same prompts.</p>")
                    table = gr.HTML(elem_id="audit-table")
    asked = (merge, find, parents, lineage, fields, uploads, launch, stop_button, message)
    return AuditTab(*asked, line, body, verdict, chart, table, gr.State(""), gr.State(""))


def wire(tab: AuditTab, context: AppContext, run_id: gr.State) -> None:
    """Bind finding parents, launching and stopping."""
    tab.drawn.change(bind(show, context, tab), run_id, tab.outputs, show_progress="hidden")
    tab.find.click(
        bind_with_notice(find_parents, tab.notice, context, tab), tab.merge, [tab.notice, tab.lineage, tab.parents]
    )
    measuring.wire_uploads(tab.fields, tab.uploads, context)
    form: set[Block] = {tab.merge, tab.parents, *tab.fields.values()}
    tab.launch.click(bind_with_notice(audit, tab.notice, context, tab, run_id), form, [tab.notice, run_id])
    tab.stop.click(bind_with_notice(stop, tab.notice, context, tab), run_id, [tab.notice, tab.stop])


def followed(tab: AuditTab) -> FollowedTab:
    """How the tab follows the run on the page."""
    live: list[Block] = [tab.line, tab.stop]
    return FollowedTab(tab.revision, tab.drawn, live, partial(show_live, tab), partial(show_clock, tab), content)


def content(view: RunView) -> str:
    """What verdict, chart and table depend on; see `FollowedTab`."""
    return f"{len(view.models)} {view.status}"


def audit(
    context: AppContext, tab: AuditTab, run_id: gr.State, values: Mapping[Any, Any], profile: gr.OAuthProfile | None
) -> Updates:
    """Start the audit that the form describes, and show it."""
    require_starter(context.settings, profile)
    form = {name: values[field] for name, field in tab.fields.items()}
    spec = audit_spec(values[tab.merge], lines_of(values[tab.parents]), form)
    return {run_id: launching.start(context, spec)}


def fill(tab: AuditTab, spec: ComparisonSpec) -> Updates:
    """Fill the form from an audit; raises `SpecError`."""
    form = form_of_comparison(spec)
    named = {role: [one.model for one in spec.models if one.role == role] for role in ("merged", "parent")}
    texts: Updates = {tab.merge: "\n".join(named["merged"]), tab.parents: "\n".join(named["parent"])}
    return {**texts, **{field: form[name] for name, field in tab.fields.items()}}


def stop(context: AppContext, tab: AuditTab, run_id: str, profile: gr.OAuthProfile | None) -> Updates:
    """Stop the audit on the page."""
    return {tab.stop: launching.stop(context, run_id, profile)}


def show_live(tab: AuditTab, watched: Watched) -> Updates:
    """Show the progress of the audit on the page; other kinds of runs are not shown here."""
    if not is_audit(watched.view):
        return {tab.line: _no_audit(), tab.stop: gr.update(interactive=False)}
    return {**show_clock(tab, watched), tab.stop: gr.update(interactive=not watched.view.over)}


def show_clock(tab: AuditTab, watched: Watched) -> Updates:
    """Show the elapsed time of the audit on the page."""
    folder, view, *_ = watched
    if not is_audit(view):
        return {}
    return {tab.line: run_progress(view, folder.run_id, watched.now)}


def show(context: AppContext, tab: AuditTab, run_id: str) -> Updates:
    """Show verdict, chart and table of the audit on the page; hide them for other kinds of runs."""
    if not run_id:
        return {}
    folder, view, *_ = context.watch.look(run_id)
    merge = next((model.name for model in view.models if model.role == "merged"), "")
    if not (is_audit(view) and merge):
        return {tab.body: gr.update(visible=False), tab.verdict: "", tab.table: ""}
    verdict = judge_merge(view.models, context.replies.all_rows(folder, view))
    tested = contrasts(context, folder, view, merge)
    return {
        tab.body: gr.update(visible=True),
        tab.verdict: verdict_view(merge, verdict, view.over),
        tab.chart: alignment_figure(view),
        tab.table: side_by_side(view, merge, tested, broken_reasons(view.models, merge)),
    }


def find_parents(context: AppContext, tab: AuditTab, merge: str, profile: gr.OAuthProfile | None) -> Updates:
    """Read the parents from the files of a merged model, and say which file names them."""
    require_starter(context.settings, profile)
    if not merge.strip():
        raise SpecError("No merged model is named.", "Enter its Hub id or folder first.", code="no-merge")
    lineage = read_lineage(merge.strip(), context.settings)
    return {
        tab.lineage: lineage_notice(len(lineage.parents), lineage.source),
        tab.parents: "\n".join(lineage.parents),
    }


def lineage_notice(count: int, source: str) -> str:
    """Return how many parents were found, and in which file."""
    where = {"card": "its model card", "mergekit_config.yml": "its mergekit_config.yml"}.get(source, source)
    return notice(f"{count} parents, from {where}.", "Check the list: a card may also name other models.", "info")


def _no_audit() -> str:
    return empty("No audit on this page yet.", "Name a merged model, find or enter its parents, and press Audit.")
