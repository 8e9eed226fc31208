"""Which endpoints a visitor may call signed out: all endpoints of the running page, against the one table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr
import pytest

from core.settings import Settings
from safemerge_ui import endpoints
from safemerge_ui.app import create_app
from safemerge_ui.boundary import bind
from safemerge_ui.endpoints import OPEN, close_endpoints, endpoint_name, is_closed
from tests.ui.golden import golden_events, write_run
from tests.ui.served_space import ServedSpace, serve_space

STARTING = {
    "app.launch", "app.check", "app.resume", "app.resume_shown", "app.fill_file", "app.fill_yaml",
    "tabs.data.safety_upload",
    "tabs.data.domain_upload", "tabs.pair_editor.copy_pairs", "tabs.pair_editor.save_row",
    "tabs.pair_editor.drop_row", "tabs.pair_editor.append_row", "tabs.pair_editor.show_file",
    "tabs.pair_editor.turn_page", "tabs.pair_editor.edit_card", "tabs.pair_editor.preview_upload",
    "tabs.pair_editor.use_upload", "tabs.pair_editor.push_file", "tabs.pair_editor.decide", "tabs.merge.stop",
    "tabs.saving.save", "tabs.saving.cancel", "tabs.evaluate.measure", "tabs.evaluate.check",
    "tabs.evaluate.write_report", "tabs.evaluate.stop", "tabs.measuring.use_prompts", "tabs.audit.find_parents",
    "api.preflight", "api.download_report", "api.launch", "api.stop", "api.resume", "api.evaluate", "api.audit",
    "api.chat", "tabs.publish_panel.forget_token", "tabs.publish_panel.check", "tabs.publish_panel.publish",
    "tabs.audit.audit", "tabs.audit.stop", "tabs.chat.ask", "tabs.chat.answer",
    "tabs.chat.regenerate", "tabs.runs.ask_to_delete", "tabs.runs.delete",
    "tabs.story.ask",
}  # fmt: skip
"""Endpoints that reach the Hub, the disk or the device, or change something."""


@pytest.fixture
def space(settings: Settings) -> Settings:
    return replace(settings, on_space=True, allowed_users=frozenset({"ada"}))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSpace]:
    folder = tmp_path_factory.mktemp("space")
    settings = Settings(folder / "home", folder / "runs", True, frozenset({"ada"}), None, 0.5)
    write_run(settings.runs / "seen", golden_events())
    page = serve_space(settings, "a secret of the test")
    yield page
    page.app.close()


def test_every_endpoint_of_the_page_is_either_closed_or_in_the_table(space: Settings) -> None:
    handlers = [function.fn for function in create_app(space).fns.values() if function.fn is not None]
    by_name = {endpoint_name(handler): is_closed(handler) for handler in handlers}
    assert {name for name, closed in by_name.items() if closed} == STARTING
    assert {name for name, closed in by_name.items() if not closed} == OPEN.keys() - {
        "gradio.components.login_button.LoginButton._check_login_status"
    }
    assert all(is_closed(handler) == (endpoint_name(handler) in STARTING) for handler in handlers)


def test_a_new_endpoint_is_closed_until_it_is_listed(space: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def added(number: float) -> float:
        return number

    with gr.Blocks() as app:
        field = gr.Number()
        field.change(bind(added), field, field)
        field.submit(added, field, field)
    close_endpoints(app, space)
    assert all(is_closed(function.fn) for function in app.fns.values() if function.fn)
    with gr.Blocks() as app:
        field = gr.Number()
        field.change(bind(added), field, field)
    monkeypatch.setitem(endpoints.OPEN, endpoint_name(added), "for a test")
    close_endpoints(app, space)
    assert not any(is_closed(function.fn) for function in app.fns.values() if function.fn)


class Endpoint(NamedTuple):
    """An endpoint of the served page: its name in the address, its handler, and its inputs as the page sends them."""

    name: str
    handler: str
    data: list[Any]


def _endpoints(page: ServedSpace) -> list[Endpoint]:
    return [
        Endpoint(
            str(function.api_name),
            endpoint_name(function.fn),
            [one.get_config().get("value") for one in function.inputs if not isinstance(one, gr.State)],
        )
        for function in page.app.fns.values()
        if function.fn is not None
    ]


def test_closed_endpoints_do_nothing_for_anonymous_unlisted_and_forged_visitors(served: ServedSpace) -> None:
    called = [one for one in _endpoints(served) if one.handler in STARTING]
    assert {one.handler for one in called} == STARTING
    for one in called:
        for visitor in ({}, {"user": "eve"}, {"cookie": served.cookie("ada", "another secret")}):
            answer = served.call(one.name, one.data, **visitor)
            assert _refused(answer), (one, visitor, answer)


_UNCHANGED = (None, {"__type__": "update"}, {"__type__": "update", "props": {"__type__": "update"}})


def _refused(answer: str) -> bool:
    """Whether an answer is a notice about signing in, or changes nothing (the warning goes beside it)."""
    if answer.startswith("event: error"):  # of the public functions
        return "not-signed-in" in answer or "not-allowed" in answer
    event, line = answer.strip().splitlines()[-2:]
    updates = json.loads(line.removeprefix("data: "))
    notices = [text for text in updates if isinstance(text, str)]
    skipped = all(isinstance(update, str) or update in _UNCHANGED for update in updates)
    allowed = all("needs a signed-in user" in text or "may not start work" in text for text in notices)
    return event == "event: complete" and skipped and allowed


def test_the_check_of_a_pool_needs_a_listed_user(served: ServedSpace) -> None:
    one = next(one for one in _endpoints(served) if one.handler == "app.check")
    assert "needs a signed-in user" in served.call(one.name, one.data)
    assert "eve may not start work" in served.call(one.name, one.data, user="eve")
    listed = served.call(one.name, one.data, user="ada")
    assert "signed-in" not in listed and "may not" not in listed and "sm-table" in listed


def test_runs_are_shown_to_everybody(served: ServedSpace) -> None:
    one = next(one for one in _endpoints(served) if one.handler == "tabs.runs.show_history")
    assert "seen" in served.call(one.name, one.data)
