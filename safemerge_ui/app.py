"""The page: its tabs, and the wiring between them. `create_app(settings)` makes an app that shares nothing.

One state ties the tabs together: the id of the run on this page. Whatever sets it (a launch, the history, the
address, the browser's memory) makes every tab show that run, and a timer follows it until it is over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from core.errors import RunError
from core.jobs.worker import resume_run
from core.settings import ASSETS, Settings
from safemerge_ui.access import can_sign_in, require_starter
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.boundary import bind, bind_with_notice
from safemerge_ui.form import Form, form_from_spec, spec_from_form
from safemerge_ui.launching import naming_a_busy_run, start
from safemerge_ui.scripts import RUN_IN_ADDRESS, SHOW_RUN_IN_ADDRESS, TOGGLE_THEME
from safemerge_ui.tabs import audit, chat, data, evaluate, merge, pool, runs
from safemerge_ui.theme import CSS, make_theme
from safemerge_ui.views.names import is_audit
from safemerge_ui.views.progress import run_notice, run_pill

POLL_S = 1.0
SHOWN_LIVE = len(evaluate.EvaluateLive._fields) + len(audit.AuditLive._fields)
SHOWN_MERGE = len(merge.MergeShown._fields)
SHOWN_DATA = len(data.DataShown._fields)
BRAND = '<div class="sm-brand"><b>SafeMerge</b><span>safety-aware model merging</span></div>'
_NOT_SECRET = "safemerge-run-id"
"""Key of the browser's memory, which holds a run id only; a fixed one lets it outlive a restart of the app."""

Fields = dict[str, gr.components.Component]


class Page(NamedTuple):
    """The tabs and what ties them together.

    Attributes:
        run_id: the run on this page; empty for none.
        revision: how much of that run has been drawn.
        remembered: the run id in the browser's memory.
        chat_opened: event of the Chat tab being opened.
        runs_opened: event of the Runs tab being opened.
    """

    tabs: gr.Tabs
    pool: pool.PoolTab
    data: data.DataTab
    merge: merge.MergeTab
    evaluate: evaluate.EvaluateTab
    audit: audit.AuditTab
    chat: chat.ChatTab
    runs: runs.RunsTab
    pill: gr.HTML
    theme: gr.Button
    timer: gr.Timer
    run_id: gr.State
    revision: gr.State
    remembered: gr.BrowserState
    chat_opened: Any
    runs_opened: Any

    @property
    def fields(self) -> Fields:
        """The whole form, over the tabs that have a part of it."""
        return {**self.pool.fields, **self.data.fields, **self.merge.fields}

    @property
    def live(self) -> list[Any]:
        """What following a run fills."""
        watched = [self.revision, self.timer, self.pill, *self.evaluate.live, *self.audit.live]
        return [*watched, *self.merge.outputs, *self.data.outputs]


def create_app(settings: Settings, assets: Path = ASSETS) -> gr.Blocks:
    """Build the page.

    Args:
        settings: where runs and models are kept, and who may start work.
        assets: folder with `specs/` and the demo's prompts.
    """
    context = make_context(settings, assets)
    with gr.Blocks(title="SafeMerge", analytics_enabled=False, fill_width=True) as app:
        page = _build(context)
        pool.wire(page.pool)
        data.wire(page.data, context, page.run_id)
        merge.wire(page.merge, context, page.run_id)
        evaluate.wire(page.evaluate, context, page.run_id)
        audit.wire(page.audit, context, page.run_id)
        chat.wire(page.chat, context, page.run_id)
        runs.wire(page.runs, context, page.run_id)
        _wire_form(page, context)
        _wire_run(page, context, app)
    return app


def launch_options(settings: Settings) -> dict[str, Any]:
    """How `launch` serves the page: reachable from outside on a Space only, dressed in our theme, no footer links."""
    return {
        "server_name": "0.0.0.0" if settings.on_space else "127.0.0.1",
        "theme": make_theme(),
        "css_paths": [CSS],
        "footer_links": [],
        "ssr_mode": False,
        "show_error": False,
    }


def _build(context: AppContext) -> Page:
    form = form_from_spec(context.default_spec)
    with gr.Row(elem_classes="sm-top"):
        gr.HTML(BRAND)
        pill = gr.HTML(elem_id="run-pill")
        if context.settings.on_space and can_sign_in():
            gr.LoginButton(size="sm", min_width=120)
        theme = gr.Button("Theme", size="sm", elem_classes="sm-quiet", min_width=60)
    with gr.Tabs(selected="pool", overflow_behavior="wrap", elem_classes="sm-tabs") as tabs:
        with gr.Tab("Pool", id="pool"):
            pool_tab = pool.build(context)
        with gr.Tab("Data", id="data", render_children=True):
            data_tab = data.build(form)
        with gr.Tab("Merge", id="merge", render_children=True):
            merge_tab = merge.build(form)
        with gr.Tab("Evaluate", id="evaluate", render_children=True):
            evaluate_tab = evaluate.build()
        with gr.Tab("Chat", id="chat", render_children=True) as chat_item:
            chat_tab = chat.build(context)
        with gr.Tab("Audit", id="audit", render_children=True):
            audit_tab = audit.build()
        with gr.Tab("Runs", id="runs", render_children=True) as runs_item:
            runs_tab = runs.build()
    return Page(
        tabs=tabs,
        pool=pool_tab,
        data=data_tab,
        merge=merge_tab,
        evaluate=evaluate_tab,
        audit=audit_tab,
        chat=chat_tab,
        runs=runs_tab,
        pill=pill,
        theme=theme,
        timer=gr.Timer(POLL_S, active=False),
        run_id=gr.State(""),
        revision=gr.State(-1),
        remembered=gr.BrowserState("", storage_key="safemerge-run", secret=_NOT_SECRET),
        chat_opened=chat_item.select,
        runs_opened=runs_item.select,
    )


def _wire_form(page: Page, context: AppContext) -> None:
    """Everything that reads or fills the whole form."""
    fields, inputs = page.fields, set(page.fields.values())
    for button, message in ((page.pool.launch, page.pool.notice), (page.merge.launch, page.merge.notice)):
        button.click(bind_with_notice(launch, context, fields, outputs=2), inputs, [message, page.run_id, page.tabs])
    page.pool.check.click(
        bind_with_notice(check, context, fields, outputs=1), inputs, [page.pool.notice, page.pool.checks]
    )
    filled = [page.pool.notice, page.pool.overview, *page.pool.slots, *fields.values()]
    count = len(filled) - 1
    page.pool.preset.input(bind_with_notice(fill_preset, context, fields, outputs=count), page.pool.preset, filled)
    page.pool.read_yaml.click(bind_with_notice(fill_yaml, fields, outputs=count), page.pool.yaml, filled)
    page.pool.upload_yaml.upload(bind_with_notice(fill_file, fields, outputs=count), page.pool.upload_yaml, filled)
    page.pool.write_yaml.click(
        bind_with_notice(write_yaml, fields, outputs=1), inputs, [page.pool.notice, page.pool.yaml]
    )
    for name, field in page.pool.fields.items():
        if name in ("base", "generator", "guard", "ancestor") or name.endswith(("_model", "_domain")):
            field.blur(bind(draw, fields), inputs, page.pool.overview, show_progress="hidden")


def _wire_run(page: Page, context: AppContext, app: gr.Blocks) -> None:
    """Everything that chooses the run on this page or follows it."""
    live = [page.run_id, page.revision, *page.data.filters]
    found = [page.run_id, page.tabs]
    app.load(bind(attach, context), page.remembered, found, show_progress="hidden", js=RUN_IN_ADDRESS)
    page.runs.history.open(bind(open_run, context), None, found, show_progress="hidden")
    resumed = [page.runs.notice, page.run_id, page.tabs, page.timer]
    page.runs.history.resume(bind_with_notice(resume, context, outputs=3), None, resumed)
    page.timer.tick(bind(follow, context), live, page.live, show_progress="hidden", concurrency_limit=8)
    page.run_id.change(bind(show, context), live, page.live, show_progress="hidden")
    kept = page.run_id.change(bind(remember), page.run_id, page.remembered, show_progress="hidden")
    kept.then(None, page.remembered, None, js=SHOW_RUN_IN_ADDRESS)
    for happened in (page.run_id.change, page.chat_opened):
        seating = [page.run_id, page.chat.seated, *page.chat.selected_models]
        happened(bind(chat.seat_updates, context), seating, page.chat.seating, show_progress="hidden")
        happened(bind(chat.guard_updates, context), page.run_id, page.chat.guard, show_progress="hidden")
    page.runs_opened(bind(runs.show_history, context), page.run_id, page.runs.history, show_progress="hidden")
    page.theme.click(None, None, None, js=TOGGLE_THEME)


def launch(
    context: AppContext, fields: Fields, values: dict[Any, Any], profile: gr.OAuthProfile | None
) -> tuple[str, Any]:
    """Form -> spec -> worker; shows the new run."""
    require_starter(context.settings, profile)
    spec = spec_from_form(read_form(fields, values))
    return start(context, spec), gr.Tabs(selected="merge")


def check(context: AppContext, fields: Fields, values: dict[Any, Any]) -> str:
    """Form -> spec -> preflight table."""
    return pool.check_pool(context, read_form(fields, values))


def draw(fields: Fields, values: dict[Any, Any]) -> Any:
    """The overview of the form's pool."""
    return pool.draw_pool(read_form(fields, values))


def write_yaml(fields: Fields, values: dict[Any, Any]) -> str:
    """Form -> spec -> YAML."""
    return spec_from_form(read_form(fields, values)).to_yaml()


def fill_preset(context: AppContext, fields: Fields, label: str) -> list[Any]:
    """A ready-made pool into the form."""
    return _filled(fields, pool.preset_form(context, label))


def fill_yaml(fields: Fields, text: str) -> list[Any]:
    """YAML text into the form."""
    return _filled(fields, pool.yaml_form(text))


def fill_file(fields: Fields, path: str) -> list[Any]:
    """An uploaded YAML file into the form."""
    return fill_yaml(fields, Path(path).read_text(encoding="utf-8", errors="replace"))


def attach(context: AppContext, run_id: str) -> tuple[Any, Any]:
    """The run that the address names or this browser showed last; none when it is gone."""
    try:
        context.watch.folder(run_id)
    except RunError:
        return gr.skip(), gr.skip()
    return run_id, gr.Tabs(selected=_home(context, run_id))


def _home(context: AppContext, run_id: str) -> str:
    """The tab that a run opens on: where its kind is shown; Merge, which says so, for one that cannot be read."""
    try:
        view = context.watch.look(run_id).view
    except RunError:
        return "merge"
    return "audit" if is_audit(view) else "evaluate" if view.is_comparison else "merge"


def open_run(context: AppContext, event: gr.EventData) -> tuple[str, Any]:
    """A run from the history onto this page."""
    run_id = runs.chosen_run(event)
    return run_id, gr.Tabs(selected=_home(context, run_id))


def resume(context: AppContext, event: gr.EventData, profile: gr.OAuthProfile | None) -> tuple[str, Any, Any]:
    """Go on with a run of the history, and follow it on this page (which may show it already)."""
    require_starter(context.settings, profile)
    run_id = runs.chosen_run(event)
    with naming_a_busy_run(context):
        resume_run(context.watch.folder(run_id), context.settings)
    return run_id, gr.Tabs(selected=_home(context, run_id)), gr.Timer(active=True)


def show(context: AppContext, run_id: str, _revision: int, dataset: str, shown: str, page_number: int) -> list[Any]:
    """Draw the run that has just been chosen, all of it."""
    return follow(context, run_id, -1, dataset, shown, page_number)


def follow(context: AppContext, run_id: str, revision: int, dataset: str, shown: str, page_number: int) -> Any:
    """Draw what is new of the run on this page; stops the timer once the run is over or gone."""
    if not run_id:
        return gr.skip()
    try:
        watched = context.watch.look(run_id)
    except RunError as error:
        gone = run_notice(error.message)
        return [gr.skip(), gr.Timer(active=False), gone, *[gr.skip()] * (SHOWN_LIVE + SHOWN_MERGE + SHOWN_DATA)]
    head = [watched.revision, gr.Timer(active=not watched.view.over), run_pill(watched.view, run_id)]
    head += [*evaluate.show_live(watched), *audit.show_live(watched)]
    if watched.revision == revision:
        return [*head, *merge.show_clock(watched), *[gr.skip()] * SHOWN_DATA]
    return [*head, *merge.show_run(watched), *data.show_data(watched.view, dataset, shown, int(page_number))]


def remember(run_id: str) -> str:
    """What the browser keeps for the next visit."""
    return run_id


def read_form(fields: Fields, values: dict[Any, Any]) -> Form:
    """The form's values by field name."""
    return {name: values[component] for name, component in fields.items()}


def _filled(fields: Fields, form: Form) -> list[Any]:
    overview = pool.draw_pool(form)
    return [overview, *pool.slot_updates(form), *(form[name] for name in fields)]
