"""Which endpoints of the page a visitor may call without signing in, as one table; every other endpoint is closed.

Each event of the page is an endpoint that any program can call (`/gradio_api/call/launch`), whether or not its button
is shown. `close_endpoints` puts the rule of `require_starter` before every endpoint that the table does not list, so a
new endpoint is closed until somebody lists it. Nothing is closed where the dashboard runs locally.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from core.errors import SafeMergeError
from core.settings import Settings
from safemerge_ui.access import require_starter
from safemerge_ui.boundary import warn

OPEN: dict[str, str] = {
    "tabs.story.turn": "shows the recorded run: the next or previous act",
    "tabs.story.open_act": "shows the recorded run: one act",
    "tabs.story.open_address": "shows the recorded run: the act in the address",
    "tabs.story.toggle_play": "shows the recorded run: plays or pauses",
    "tabs.story.tick": "shows the recorded run: the next step",
    "tabs.story.leave": "changes the page alone",
    "tabs.story.show_replies": "shows the recorded run: replies to another kind of prompt",
    "page_run.attach": "shows a run: the one in the address",
    "page_run.follow": "shows a run: what is new",
    "page_run.open_tab": "shows a run: the opened tab",
    "app.open_run": "shows a run: one of the history",
    "app.fill_from_run": "shows a run: its settings in the form",
    "app.remember": "returns the id that the browser stores",
    "tabs.runs.show_history": "shows the list of runs",
    "tabs.runs.hide_question": "changes the page alone",
    "tabs.data.show": "shows a run: its pairs",
    "tabs.data.filter_samples": "shows a run: a selection of its pairs",
    "tabs.data.turn_page": "shows a run: more of its pairs",
    "tabs.merge.show": "shows a run: charts and results",
    "tabs.merge.recount": "shows a run: how many candidates are on the front",
    "tabs.merge.explore": "shows a run: another alpha",
    "tabs.saving.follow": "shows a run: its saved candidates",
    "tabs.publish_panel.offer": "shows a run: the merges that it has saved, and its last upload",
    "tabs.publish_panel.follow": "shows a run: its last upload",
    "api.list_runs": "shows the list of runs",
    "api.run_status": "shows a run: its progress",
    "api.run_result": "shows a run: its result",
    "tabs.evaluate.show": "shows a run: its measurements",
    "tabs.evaluate.draw_categories": "shows a run: rates by category",
    "tabs.replies.filter_replies": "shows a run: a selection of its replies",
    "tabs.replies.turn_page": "shows a run: more of its replies",
    "tabs.audit.show": "shows a run: its verdict",
    "tabs.chat.offer_models": "shows a run: names of its models",
    "tabs.chat.clear": "changes the page alone",
    "tabs.chat.edit": "changes the page alone",
    "tabs.chat.guess": "changes the page alone",
    "tabs.chat.stop": "ends the visitor's own replies",
    "tabs.chat.export": "returns what the page shows",
    "tabs.chat.use_prompt": "copies an example prompt of the project",
    "tabs.pool.show_next_slot": "changes the page alone",
    "app.fill_preset": "fills the form from a spec of the project",
    "app.update_overview": "reads the form, and nothing else",
    "app.write_yaml": "reads the form, and nothing else",
    "gradio.components.login_button.LoginButton._check_login_status": "labels the sign-in button",
}
"""Endpoints that are open to everybody, each with the reason. None reaches the Hub or the device, or writes a file;
those that show a run read its folder only."""


def endpoint_name(handler: Callable[..., Any]) -> str:
    """The name of a handler in `OPEN`: its module, without the package of the page, and its name."""
    return f"{handler.__module__}.{handler.__qualname__}".removeprefix("safemerge_ui.")


def close_endpoints(app: gr.Blocks, settings: Settings) -> None:
    """Let only visitors who may start work call the endpoints that `OPEN` does not list.

    Args:
        app: the whole page, with all its events.
        settings: say who may start work.
    """
    for function in app.fns.values():
        if function.fn is not None and endpoint_name(function.fn) not in OPEN:
            function.fn = _closed(function.fn, settings)


def is_closed(handler: Callable[..., Any]) -> bool:
    """Whether `close_endpoints` has put the rule before a handler."""
    return hasattr(handler, "closed_for")


def _closed(handler: Callable[..., Any], settings: Settings) -> Any:
    """The handler, called only for a visitor who may start work; gradio passes the visitor's profile first."""
    refuse = getattr(handler, "refuse", warn)

    def call(visitor: gr.OAuthProfile | None, *arguments: Any) -> Any:
        try:
            require_starter(settings, visitor)
        except SafeMergeError as error:
            return refuse(error)
        return handler(*arguments)

    def stream(visitor: gr.OAuthProfile | None, *arguments: Any) -> Iterator[Any]:
        try:
            require_starter(settings, visitor)
        except SafeMergeError as error:
            yield refuse(error)
            return
        yield from handler(*arguments)

    closed: Any = stream if inspect.isgeneratorfunction(handler) else call
    functools.update_wrapper(closed, handler)
    closed.__annotations__ = {"visitor": gr.OAuthProfile | None, **handler.__annotations__}
    signature = inspect.signature(handler)
    visitor = inspect.Parameter("visitor", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    closed.__signature__ = signature.replace(parameters=[visitor, *signature.parameters.values()])
    closed.closed_for = settings
    return closed
