"""The run on the page: which run it is, and how the visible tab follows it.

A timer, a change of the run and a change of the tab all call `follow`. It sends what is new to the visible tab only.
A hidden tab receives nothing; it is brought up to date at the moment it is opened. Each tab remembers in its own
states which revision it shows, so that an unchanged run sends nothing but the elapsed time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gradio as gr
from gradio.blocks import Block

from core.errors import RunError
from core.runs.view import RunView
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates
from safemerge_ui.views.names import is_audit
from safemerge_ui.views.progress import run_notice, run_pill
from safemerge_ui.watch import Watched


class PageRun(NamedTuple):
    """The components that hold and announce the run on the page.

    Attributes:
        run_id: id of the run; empty for none.
        visible_tab: id of the tab that the visitor sees.
        revision: run and revision that `pill` shows.
        pill: the run's status, in the head of the page on every tab.
        timer: ticks while the run goes on.
    """

    tabs: gr.Tabs
    run_id: gr.State
    visible_tab: gr.State
    revision: gr.State
    pill: gr.HTML
    timer: gr.Timer

    @property
    def outputs(self) -> list[Block]:
        """What `follow` fills on every tab."""
        return [self.revision, self.pill, self.timer]

    @property
    def selection(self) -> list[Block]:
        """What `select_run` fills."""
        return [self.run_id, self.tabs, self.visible_tab]


class FollowedTab(NamedTuple):
    """How one tab follows the run on the page.

    Attributes:
        revision: run and revision that `live` shows.
        drawn: state of the run that the rest of the tab shows. The tab redraws itself when this value changes.
        live: components that change with every event of the run.
        show_live: fills `live` after an event.
        show_clock: fills what changes with time alone.
        content: what the rest of the tab depends on, as a short text; equal texts need no redraw.
    """

    revision: gr.State
    drawn: gr.State
    live: list[Block]
    show_live: Callable[[Watched], Updates]
    show_clock: Callable[[Watched], Updates]
    content: Callable[[RunView], str]

    @property
    def outputs(self) -> list[Block]:
        """What `follow` fills while this tab is visible."""
        return [self.revision, self.drawn, *self.live]


Followed = Mapping[str, FollowedTab]
"""The tabs that show the run, by their id."""


def follow_inputs(page: PageRun, followed: Followed) -> set[Block]:
    """What `follow` reads."""
    return {page.run_id, page.visible_tab, page.revision, *(tab.revision for tab in followed.values())}


def follow_outputs(page: PageRun, followed: Followed) -> list[Block]:
    """What `follow` may fill."""
    return [*page.outputs, *(component for tab in followed.values() for component in tab.outputs)]


def follow(context: AppContext, page: PageRun, followed: Followed, values: Mapping[Any, Any]) -> Updates:
    """Send what is new of the run to the visible tab; stop the timer when the run is over or deleted."""
    run_id = values[page.run_id]
    if not run_id:
        return {}
    try:
        watched = context.watch.look(run_id)
    except RunError as error:
        return {page.timer: gr.Timer(active=False), page.pill: run_notice(error.message)}
    over, revision = watched.view.over, f"{run_id} {watched.revision}"
    updates: Updates = {}
    if values[page.revision] != revision:
        updates[page.revision] = revision
        updates[page.pill] = run_pill(watched.view, run_id)
        updates[page.timer] = gr.Timer(active=not over)
    elif over:
        updates[page.timer] = gr.Timer(active=False)
    if tab := followed.get(values[page.visible_tab]):
        updates |= _follow_tab(tab, watched, revision, values[tab.revision])
    return updates


def open_tab(context: AppContext, page: PageRun, followed: Followed, tab_id: str, values: Mapping[Any, Any]) -> Updates:
    """Note which tab the visitor opened, and bring it up to date."""
    opened = {**values, page.visible_tab: tab_id}
    return {page.visible_tab: tab_id, **follow(context, page, followed, opened)}


def attach(context: AppContext, page: PageRun, run_id: str, asked: str) -> Updates:
    """Select the run that the address names or this browser showed last, and the tab that the address names.

    Args:
        context: what handlers work with.
        page: the run on the page.
        run_id: id of the run.
        asked: id of the tab, and `|run` after it if the run is from the address: then it is reported if there is none.
    """
    tab_id, _, from_address = asked.partition("|")
    opened: Updates = {page.tabs: gr.Tabs(selected=tab_id), page.visible_tab: tab_id} if tab_id else {}
    try:
        context.watch.folder(run_id)
    except RunError as error:
        return {**opened, page.pill: run_notice(error.message)} if from_address else opened
    return {**select_run(context, page, run_id), **opened}


def select_run(context: AppContext, page: PageRun, run_id: str) -> Updates:
    """Put a run on the page, and open the tab that shows its kind."""
    return selected(page, run_id, _home_tab(context, run_id))


def selected(page: PageRun, run_id: str, tab_id: str) -> Updates:
    """Put a run on the page, and open a tab."""
    return {page.run_id: run_id, page.tabs: gr.Tabs(selected=tab_id), page.visible_tab: tab_id}


def _home_tab(context: AppContext, run_id: str) -> str:
    """Id of the tab that shows a run's kind; Merge for a run that cannot be read."""
    try:
        view = context.watch.look(run_id).view
    except RunError:
        return "merge"
    return "audit" if is_audit(view) else "evaluate" if view.is_comparison else "merge"


def _follow_tab(tab: FollowedTab, watched: Watched, revision: str, shown: str) -> Updates:
    if shown != revision:
        drawn = f"{watched.folder.run_id} {tab.content(watched.view)}"
        return {tab.revision: revision, tab.drawn: drawn, **tab.show_live(watched)}
    return {} if watched.view.over else tab.show_clock(watched)
