"""A visitor's session without a browser: the page's states, and what handlers send to it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.blocks import Block

from safemerge_ui import page_run
from safemerge_ui.app import Page, build_page
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates


def built_page(context: AppContext) -> Page:
    """The page's components, without a server."""
    with gr.Blocks():
        return build_page(context)


class Session:
    """The states of one visitor's page. Each method returns the components that were filled, without states."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.page = built_page(context)
        run, followed = self.page.run, self.page.followed
        components = {*page_run.follow_inputs(run, followed), *page_run.follow_outputs(run, followed)}
        self.values: dict[Block, Any] = {one: one.value for one in components if isinstance(one, gr.State)}

    def apply(self, updates: Updates) -> set[Block]:
        """Store new values of states, as gradio does; returns the other components that were filled."""
        self.values |= {component: value for component, value in updates.items() if isinstance(component, gr.State)}
        return {component for component in updates if not isinstance(component, gr.State)}

    def show(self, run_id: str) -> set[Block]:
        """Put a run on the page, and follow it once, as a change of the run does."""
        self.apply(page_run.select_run(self.context, self.page.run, run_id))
        return self.tick()

    def tick(self) -> set[Block]:
        """One tick of the timer."""
        run, followed = self.page.run, self.page.followed
        return self.apply(page_run.follow(self.context, run, followed, self.values))

    def open(self, tab_id: str) -> set[Block]:
        """Open a tab."""
        run, followed = self.page.run, self.page.followed
        return self.apply(page_run.open_tab(self.context, run, followed, tab_id, self.values))

    def drawn(self, tab_id: str) -> str:
        """The value whose change redraws a tab."""
        return str(self.values[self.page.followed[tab_id].drawn])
