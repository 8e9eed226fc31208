"""Audit: a published merge against the models it was merged from, with a verdict in plain words."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from core.errors import SpecError
from core.evaluation.audit import judge_merge
from core.evaluation.lineage import read_lineage
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind, bind_with_notice
from safemerge_ui.charts.alignment import alignment_figure
from safemerge_ui.comparison_form import audit_spec, lines_of
from safemerge_ui.contrasts import contrasts, looks_broken
from safemerge_ui.launching import start, stop
from safemerge_ui.tabs import measuring
from safemerge_ui.views.markup import empty, notice
from safemerge_ui.views.names import is_audit
from safemerge_ui.views.progress import ending, run_line, stepper
from safemerge_ui.views.side_by_side import side_by_side
from safemerge_ui.views.verdict import verdict_view
from safemerge_ui.watch import Watched

INTRO = (
    "<h2>A published merge</h2><p>Is it as safe as what it was made of? One badly aligned parent is enough to cost a "
    "merge its refusals.</p>"
)


@dataclass(frozen=True)
class AuditTab:
    """Components of the tab; `measured` is as in Evaluate, `fields` by the names of `comparison_form.FIELDS`."""

    merge: gr.Textbox
    find: gr.Button
    parents: gr.Textbox
    found: gr.HTML
    fields: measuring.Fields
    uploads: dict[str, gr.UploadButton]
    launch: gr.Button
    stop: gr.Button
    notice: gr.HTML
    line: gr.HTML
    measured: gr.State
    body: gr.Column
    verdict: gr.HTML
    chart: gr.Plot
    table: gr.HTML

    @property
    def live(self) -> list[Any]:
        """What following a run fills."""
        return [self.measured, self.line, self.stop]

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        return [self.body, self.verdict, self.chart, self.table]


class AuditLive(NamedTuple):
    """Values for `AuditTab.live`."""

    measured: Any
    line: Any
    stop: Any


def build() -> AuditTab:
    """Lay out what to audit on the left and the audit on this page on the right."""
    with gr.Row(elem_classes="sm-merge"):
        with gr.Column(scale=1, min_width=300, elem_classes="sm-panel sm-settings"):
            gr.HTML(INTRO)
            merge = gr.Textbox(
                label="Merged model",
                info="Hub id, id@revision, folder, base+lora",
                placeholder="org/merge",
                elem_id="audit-merge",
            )
            with gr.Row(elem_classes="sm-actions"):
                find = gr.Button("Find parents", size="sm", elem_id="audit-find")
            found = gr.HTML(elem_id="audit-found")
            parents = gr.Textbox(
                label="Parents",
                info="One reference a line; add and remove as you like",
                lines=4,
                elem_id="audit-parents",
            )
            with gr.Accordion("How they are measured", open=False, elem_classes="sm-sub"):
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
                    gr.HTML("<h2>Figures</h2><p>Compared with the merge, on the same prompts.</p>")
                    table = gr.HTML(elem_id="audit-table")
    asked = (merge, find, parents, found, fields, uploads, launch, stop_button, message)
    return AuditTab(*asked, line, gr.State(""), body, verdict, chart, table)


def wire(tab: AuditTab, context: AppContext, run_id: gr.State) -> None:
    """Bind finding parents, launching and stopping."""
    tab.measured.change(bind(show, context), run_id, tab.outputs, show_progress="hidden")
    tab.find.click(bind_with_notice(find_parents, context, outputs=2), tab.merge, [tab.notice, tab.found, tab.parents])
    measuring.wire_uploads(tab.fields, tab.uploads, context)
    tab.launch.click(
        bind_with_notice(audit, context, tab, outputs=1),
        {tab.merge, tab.parents, *tab.fields.values()},
        [tab.notice, run_id],
    )
    tab.stop.click(bind_with_notice(stop, context, outputs=1), run_id, [tab.notice, tab.stop])


def audit(context: AppContext, tab: AuditTab, values: dict[Any, Any], profile: gr.OAuthProfile | None) -> str:
    """Form -> comparison -> worker; the page then shows it."""
    require_starter(context.settings, profile)
    form = {name: values[field] for name, field in tab.fields.items()}
    return start(context, audit_spec(values[tab.merge], lines_of(values[tab.parents]), form))


def show_live(watched: Watched) -> AuditLive:
    """The line of the audit on this page; nothing is said of a run that is none."""
    folder, view, _ = watched
    if not is_audit(view):
        return AuditLive("", _no_audit(), gr.update(interactive=False))
    return AuditLive(
        measured=f"{folder.run_id} {len(view.models)} {view.status}",
        line=run_line(view, folder.run_id, time.time()) + stepper(view) + ending(view),
        stop=gr.update(interactive=not view.over),
    )


def show(context: AppContext, run_id: str) -> Any:
    """The tab for the audit on this page; hidden where the run is none."""
    if not run_id:
        return gr.skip()
    folder, view, _ = context.watch.look(run_id)
    merge = next((model.name for model in view.models if model.role == "merged"), "")
    if not (is_audit(view) and merge):
        return gr.update(visible=False), "", gr.skip(), ""
    verdict = judge_merge(view.models, context.replies.all_rows(folder, view))
    table = side_by_side(view, merge, contrasts(context, folder, view, merge), looks_broken(view.models, merge))
    return gr.update(visible=True), verdict_view(merge, verdict, view.over), alignment_figure(view), table


def find_parents(context: AppContext, merge: str, profile: gr.OAuthProfile | None) -> tuple[str, str]:
    """The parents that a merge's own files name, one a line, and which file says so."""
    require_starter(context.settings, profile)
    if not merge.strip():
        raise SpecError("No merge is named.", "Give a Hub id or a folder of the merged model first.")
    lineage = read_lineage(merge.strip(), context.settings)
    return found_parents(len(lineage.parents), lineage.source), "\n".join(lineage.parents)


def found_parents(count: int, source: str) -> str:
    """Where the list of parents is from."""
    where = {"card": "its model card", "mergekit_config.yml": "its mergekit_config.yml"}.get(source, source)
    return notice(f"{count} parents, named by {where}.", "Check them: a card may name other models, too.", "info")


def _no_audit() -> str:
    return empty(
        "No audit on this page yet.",
        "Name a merged model, let its parents be found or write them, and press Audit.",
    )
