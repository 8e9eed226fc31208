"""The page: its tabs, and the wiring between them. `create_app(settings)` makes an app that shares nothing.

The run on the page connects the tabs: a launch, the history, the address or the browser's memory sets its id, every tab
shows that run, and `safemerge_ui.page_run` follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.blocks import Block
from starlette.middleware import Middleware

from core.contracts.run_spec import RunSpec
from core.settings import ASSETS, Settings
from safemerge_ui import api, launching
from safemerge_ui.access import MAX_UPLOAD_BYTES, can_sign_in, require_starter
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.boundary import Updates, bind, bind_with_notice
from safemerge_ui.downloads import MergeDownload
from safemerge_ui.endpoints import close_endpoints
from safemerge_ui.errors import NoMergesHere
from safemerge_ui.form import Form, form_from_spec, spec_from_form
from safemerge_ui.page_run import (
    Followed,
    PageRun,
    attach,
    follow,
    follow_inputs,
    follow_outputs,
    open_tab,
    select_run,
    selected,
)
from safemerge_ui.request_guard import RequestGuard
from safemerge_ui.scripts import (
    HIDE_ACT_IN_ADDRESS,
    RESIZE_CHARTS,
    RUN_AND_TAB_IN_ADDRESS,
    SCREEN_AND_ACT,
    SHOW_RUN_IN_ADDRESS,
    TOGGLE_THEME,
)
from safemerge_ui.slim_blocks import SlimBlocks
from safemerge_ui.tabs import audit, chat, data, evaluate, merge, pool, runs, story
from safemerge_ui.theme import compact_css, make_theme
from safemerge_ui.views.markup import notice
from safemerge_ui.zero_gpu import ZeroGpu, gpu_decorator

POLL_S = 1.0
WAITING_EVENTS = 256
"""Most events of all pages that wait. gradio's own choice on ZeroGPU is one, but a page sends several as it opens."""
UPLOADS_KEPT_S = (3600, 86400)
"""Seconds between two searches for old copies of uploads, and the age in seconds at which a copy is deleted."""
BRAND = '<div class="sm-brand"><b>SafeMerge</b><span>safety-aware model merging</span></div>'
_NOT_SECRET = "safemerge-run-id"
"""Key of the browser's memory, which holds a run id only. It is fixed, so that the memory outlives the server."""

TABS = {
    "story": "Story",
    "pool": "Pool",
    "data": "Data",
    "merge": "Merge",
    "evaluate": "Evaluate",
    "chat": "Chat",
    "audit": "Audit",
    "runs": "Runs",
}
"""Title of each tab by its id, in the order of the page."""

FIRST_TAB = "story"

Fields = dict[str, gr.components.Component]


class Page(NamedTuple):
    """The tabs and what connects them.

    Attributes:
        items: the tabs of the tab bar, by id.
        run: the run on the page.
        remembered: the run id in the browser's memory.
    """

    items: dict[str, gr.Tab]
    story: story.StoryTab
    pool: pool.PoolTab
    data: data.DataTab
    merge: merge.MergeTab
    evaluate: evaluate.EvaluateTab
    audit: audit.AuditTab
    chat: chat.ChatTab
    runs: runs.RunsTab
    theme: gr.Button
    run: PageRun
    remembered: gr.BrowserState

    @property
    def fields(self) -> Fields:
        """The whole form, from all tabs that have a part of it."""
        return {**self.pool.fields, **self.data.fields, **self.merge.fields}

    @property
    def filled_by_run(self) -> list[Block]:
        """What `fill_from_run` fills: every form, and what was said about an earlier one."""
        said = [self.pool.preset, self.pool.checks, self.pool.overview, *self.pool.slots]
        measured = [self.evaluate.references, self.audit.merge, self.audit.parents]
        fields = [*self.fields.values(), *self.evaluate.fields.values(), *self.audit.fields.values()]
        return [*said, *measured, *fields]

    @property
    def followed(self) -> Followed:
        """The tabs that show the run on the page."""
        return {
            "data": data.followed(self.data),
            "merge": merge.followed(self.merge),
            "evaluate": evaluate.followed(self.evaluate),
            "audit": audit.followed(self.audit),
        }


def create_app(settings: Settings, assets: Path = ASSETS) -> gr.Blocks:
    """Build the page.

    Args:
        settings: where runs and models are stored, and who may start work.
        assets: folder with `specs/` and the demo's prompts.
    """
    context = make_context(settings, assets, ZeroGpu(settings, gpu_decorator()) if settings.zero_gpu else None)
    app: SlimBlocks
    with SlimBlocks(title="SafeMerge", analytics_enabled=False, fill_width=True, delete_cache=UPLOADS_KEPT_S) as app:
        public = api.wire(context)
        page = build_page(context)
        run_id = page.run.run_id
        story.wire(page.story, context)
        pool.wire(page.pool)
        data.wire(page.data, context, run_id)
        merge.wire(page.merge, context, run_id)
        evaluate.wire(page.evaluate, context, run_id)
        audit.wire(page.audit, context, run_id)
        chat.wire(page.chat, context, run_id)
        runs.wire(page.runs, context, run_id)
        _wire_form(page, context)
        _wire_run(page, context, app)
        _wire_tabs(page, context)
    app.keep_private(public)
    close_endpoints(app, settings)
    app.queue(max_size=WAITING_EVENTS)
    return app


def launch_options(settings: Settings) -> dict[str, Any]:
    """Arguments of `launch`: listen where the settings say, use our theme, show no footer links, limit
    uploads, and refuse requests of other sites.

    The app is an MCP server where the package `mcp` is installed. The browser keeps no record of calls.
    """
    return {
        "server_name": settings.listen,
        "theme": make_theme(),
        "css": compact_css(),
        "footer_links": [],
        "ssr_mode": False,
        "show_error": False,
        "run_history": False,
        "mcp_server": find_spec("mcp") is not None,
        "max_file_size": MAX_UPLOAD_BYTES,
        "enable_monitoring": False,
        "app_kwargs": {
            "middleware": [Middleware(RequestGuard, settings=settings), Middleware(MergeDownload, settings=settings)]
        },
    }


def build_page(context: AppContext) -> Page:
    """Lay out the page; call it within `gr.Blocks`."""
    form = form_from_spec(context.default_spec)
    with gr.Row(elem_classes="sm-top"):
        gr.HTML(BRAND)
        pill = gr.HTML(elem_id="run-pill")
        if context.settings.on_space and can_sign_in():
            gr.LoginButton(size="sm", min_width=120)
        theme = gr.Button("Theme", size="sm", elem_classes="sm-quiet", min_width=60)
    items: dict[str, gr.Tab] = {}
    with gr.Tabs(selected=FIRST_TAB, overflow_behavior="wrap", elem_classes="sm-tabs") as tabs:
        with _tab_item(items, "story"):
            story_tab = story.build(context)
        with _tab_item(items, "pool"):
            _say_where_to_merge(context.settings)
            pool_tab = pool.build(context)
        with _tab_item(items, "data"):
            data_tab = data.build(form)
        with _tab_item(items, "merge"):
            _say_where_to_merge(context.settings)
            merge_tab = merge.build(form, context.settings.on_space)
        with _tab_item(items, "evaluate"):
            evaluate_tab = evaluate.build()
        with _tab_item(items, "chat"):
            chat_tab = chat.build(context)
        with _tab_item(items, "audit"):
            audit_tab = audit.build()
        with _tab_item(items, "runs"):
            runs_tab = runs.build()
    run = PageRun(tabs, gr.State(""), gr.State(FIRST_TAB), gr.State(""), pill, gr.Timer(POLL_S, active=False))
    return Page(
        items=items,
        story=story_tab,
        pool=pool_tab,
        data=data_tab,
        merge=merge_tab,
        evaluate=evaluate_tab,
        audit=audit_tab,
        chat=chat_tab,
        runs=runs_tab,
        theme=theme,
        run=run,
        remembered=gr.BrowserState("", storage_key="safemerge-run", secret=_NOT_SECRET),
    )


def _say_where_to_merge(settings: Settings) -> None:
    """On ZeroGPU, say that merges run elsewhere."""
    if settings.zero_gpu:
        gr.HTML(notice(NoMergesHere().message, NoMergesHere().hint, "info"), elem_classes="sm-elsewhere")


def _tab_item(items: dict[str, gr.Tab], tab_id: str) -> gr.Tab:
    """A tab whose components exist in the browser before it is opened, so that handlers can fill them."""
    items[tab_id] = gr.Tab(TABS[tab_id], id=tab_id, render_children=tab_id != FIRST_TAB)
    return items[tab_id]


def _wire_form(page: Page, context: AppContext) -> None:
    """Bind everything that reads or fills the whole form."""
    inputs: set[Block] = set(page.fields.values())
    notice = page.pool.notice
    for button, message in ((page.pool.launch, notice), (page.merge.launch, page.merge.notice)):
        button.click(bind_with_notice(launch, message, context, page), inputs, [message, *page.run.selection])
    page.pool.check.click(bind_with_notice(check, notice, context, page), inputs, [notice, page.pool.checks])
    filled = [notice, page.pool.overview, *page.pool.slots, *page.fields.values()]
    page.pool.preset.input(bind_with_notice(fill_preset, notice, context, page), page.pool.preset, filled)
    page.pool.read_yaml.click(bind_with_notice(fill_yaml, notice, page), page.pool.yaml, filled)
    page.pool.upload_yaml.upload(bind_with_notice(fill_file, notice, page), page.pool.upload_yaml, filled)
    page.pool.write_yaml.click(bind_with_notice(write_yaml, notice, page), inputs, [notice, page.pool.yaml])
    for field in pool.overview_fields(page.pool):
        field.blur(bind(update_overview, page), inputs, page.pool.overview, show_progress="hidden")


def _wire_run(page: Page, context: AppContext, app: gr.Blocks) -> None:
    """Bind everything that selects the run on the page or follows it."""
    run, followed = page.run, page.followed
    asked = [page.remembered, page.story.screen]
    attached = [*run.selection, run.pill]
    app.load(bind(attach, context, run), asked, attached, show_progress="hidden", js=RUN_AND_TAB_IN_ADDRESS)
    screen = page.story.screen
    app.load(bind(story.open_address, page.story), screen, page.story.shown, show_progress="hidden", js=SCREEN_AND_ACT)
    page.runs.history.open(bind(open_run, context, page), None, run.selection, show_progress="hidden")
    resumed = [*run.selection, run.timer]
    page.runs.history.resume(
        bind_with_notice(resume, page.runs.notice, context, page), None, [page.runs.notice, *resumed]
    )
    shown = [page.merge.notice, *resumed]
    page.merge.resume.click(bind_with_notice(resume_shown, page.merge.notice, context, page), run.run_id, shown)
    inputs, outputs = follow_inputs(run, followed), follow_outputs(run, followed)
    run.timer.tick(bind(follow, context, run, followed), inputs, outputs, show_progress="hidden", concurrency_limit=8)
    run.run_id.change(bind(follow, context, run, followed), inputs, outputs, show_progress="hidden")
    filling = bind_with_notice(fill_from_run, page.merge.notice, context, page)
    run.run_id.change(filling, run.run_id, [page.merge.notice, *page.filled_by_run], show_progress="hidden")
    saved = run.run_id.change(bind(remember), run.run_id, page.remembered, show_progress="hidden")
    saved.then(None, page.remembered, None, js=SHOW_RUN_IN_ADDRESS)


def _wire_tabs(page: Page, context: AppContext) -> None:
    """Bind what happens when a tab is opened, and the theme."""
    run, followed = page.run, page.followed
    stopped = page.story.stopped
    run.tabs.select(bind(story.leave, page.story), None, stopped, show_progress="hidden", js=HIDE_ACT_IN_ADDRESS)
    inputs, outputs = follow_inputs(run, followed), [run.visible_tab, *follow_outputs(run, followed)]
    for tab_id, item in page.items.items():
        item.select(bind(open_tab, context, run, followed, tab_id), inputs, outputs, show_progress="hidden")
        item.select(None, None, None, js=RESIZE_CHARTS)
    offered: set[Block] = {run.run_id, page.chat.proposed, *page.chat.models}
    page.items["chat"].select(
        bind(chat.offer_models, context, page.chat, run.run_id), offered, page.chat.offers, show_progress="hidden"
    )
    page.items["runs"].select(bind(runs.show_history, context), run.run_id, page.runs.history, show_progress="hidden")
    page.theme.click(None, None, None, js=TOGGLE_THEME)


def launch(context: AppContext, page: Page, values: Mapping[Any, Any], profile: gr.OAuthProfile | None) -> Updates:
    """Start the run that the form describes, and show it."""
    require_starter(context.settings, profile)
    spec = spec_from_form(read_form(page.fields, values))
    return selected(page.run, launching.start(context, spec), "merge")


def check(context: AppContext, page: Page, values: Mapping[Any, Any]) -> Updates:
    """Check the pool that the form describes."""
    return {page.pool.checks: pool.check_pool(context, read_form(page.fields, values))}


def update_overview(page: Page, values: Mapping[Any, Any]) -> Updates:
    """Show the pool that the form describes."""
    return pool.show_overview(page.pool, read_form(page.fields, values))


def write_yaml(page: Page, values: Mapping[Any, Any]) -> Updates:
    """Write the form as YAML."""
    return {page.pool.yaml: spec_from_form(read_form(page.fields, values)).to_yaml()}


def fill_preset(context: AppContext, page: Page, label: str) -> Updates:
    """Fill the form from a preset."""
    return _fill(page, pool.preset_form(context, label))


def fill_yaml(page: Page, text: str) -> Updates:
    """Fill the form from YAML text."""
    return _fill(page, pool.yaml_form(text))


def fill_file(page: Page, path: str) -> Updates:
    """Fill the form from an uploaded YAML file."""
    return fill_yaml(page, Path(path).read_text(encoding="utf-8", errors="replace"))


def fill_from_run(context: AppContext, page: Page, run_id: str) -> Updates:
    """Fill the forms from the run on the page, so that a launch repeats what is seen.

    Raises:
        SpecError: the run's spec cannot be read, or has keys that the page has no field for.
    """
    if not run_id:
        return {}
    spec = context.watch.folder(run_id).read_spec()
    if isinstance(spec, RunSpec):
        return {page.pool.preset: None, page.pool.checks: "", **_fill(page, form_from_spec(spec))}
    audited = any(compared.role == "merged" for compared in spec.models)
    return audit.fill(page.audit, spec) if audited else evaluate.fill(page.evaluate, spec)


def open_run(context: AppContext, page: Page, event: gr.EventData) -> Updates:
    """Put a run of the history on the page."""
    return select_run(context, page.run, runs.chosen_run(event))


def resume(context: AppContext, page: Page, event: gr.EventData, profile: gr.OAuthProfile | None) -> Updates:
    """Resume a run of the history, and follow it on the page, which may show it already."""
    return resume_shown(context, page, runs.chosen_run(event), profile)


def resume_shown(context: AppContext, page: Page, run_id: str, profile: gr.OAuthProfile | None) -> Updates:
    """Resume the run on the page, and follow it."""
    require_starter(context.settings, profile)
    launching.resume(context, context.watch.folder(run_id))
    return {**select_run(context, page.run, run_id), page.run.timer: gr.Timer(active=True)}


def remember(run_id: str) -> str:
    """Return what the browser stores for the next visit."""
    return run_id


def read_form(fields: Fields, values: Mapping[Any, Any]) -> Form:
    """Return the form's values by field name."""
    return {name: values[component] for name, component in fields.items()}


def _fill(page: Page, form: Form) -> Updates:
    fields: Updates = {component: form[name] for name, component in page.fields.items()}
    return {**pool.show_overview(page.pool, form), **pool.show_slots(page.pool, form), **fields}
