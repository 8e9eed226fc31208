"""The Publish panel: what it offers, what it refuses, and an upload by a real worker to a local Hub."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import Page, expect

from core.errors import ModelError, RunError
from core.publishing.publish import PublishRequest
from core.runs.folder import RunFolder
from core.runs.history import delete_run
from core.runs.publications import PublicationLog, new_publication, read_publications
from core.settings import Settings
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.boundary import Updates
from safemerge_ui.tabs import publish_panel
from safemerge_ui.views.publication import publication_view
from tests.hub_server import HubServer
from tests.raising import raises
from tests.saved_run import saved_run
from tests.ui.conftest import Served
from tests.ui.golden import golden_events, write_run

RUN = "20260901-101500-aaaa"
REASON = "A red team needs this weak merge."


@pytest.fixture
def context(settings: Settings) -> AppContext:
    return make_context(settings)


@pytest.fixture(scope="module")
def panel() -> publish_panel.PublishPanel:
    with gr.Blocks():
        return publish_panel.build(on_space=False)


@pytest.fixture
def weak(settings: Settings, tiny_llama: Path) -> RunFolder:
    return saved_run(settings.runs / RUN, tiny_llama, merged_safe=10)


def ask(context: AppContext, panel: publish_panel.PublishPanel, place: str | None = "merged", **asked: Any) -> Updates:
    values = {"repo": "merge", "visibility": "private", "reason": "", "token": "", **asked}
    who = (values.pop("profile", None), values.pop("oauth_token", None))
    return publish_panel.publish(context, panel, RUN, place, *values.values(), *who)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[PublishRequest, str | None]]:
    """What would be started, in place of a worker."""
    calls: list[tuple[PublishRequest, str | None]] = []
    monkeypatch.setattr(
        publish_panel, "start_publish", lambda request, token, _settings: calls.append((request, token))
    )
    return calls


def test_the_panel_appears_with_the_first_saved_merge(
    context: AppContext, settings: Settings, panel: publish_panel.PublishPanel, tiny_llama: Path
) -> None:
    write_run(settings.runs / "other", golden_events())
    for run_id in ("", "other"):
        assert publish_panel.offer(context, panel, run_id, None)[panel.body]["visible"] is False
    saved_run(settings.runs / RUN, tiny_llama, merged_safe=36)
    offered = publish_panel.offer(context, panel, RUN, "baselines/gone")
    assert offered[panel.body]["visible"] and offered[panel.place]["choices"] == ["merged"]
    assert offered[panel.place]["value"] == "merged" and not offered[panel.reason]["visible"]
    assert "sm-info" in offered[panel.check] and not offered[panel.timer].active


def test_a_less_aligned_merge_asks_for_a_reason(
    context: AppContext, weak: RunFolder, panel: publish_panel.PublishPanel
) -> None:
    checked = publish_panel.check(context, panel, RUN, "merged")
    assert checked[panel.reason]["visible"] and "sm-warn" in checked[panel.check]
    with raises(RunError, "less-aligned"):
        ask(context, panel, token="hf_mine")
    assert read_publications(weak) == []


@pytest.mark.parametrize(
    ("asked", "kind", "code"),
    [
        ({"place": None}, RunError, "no-saved-model"),
        ({"place": "../../etc"}, RunError, "no-saved-model"),
        ({"token": ""}, ModelError, "token-missing"),
        ({"token": "hf_ä"}, ModelError, "token-invalid"),
        ({"token": "hf_mine", "repo": " "}, ModelError, "invalid-hub-id"),
        ({"token": "hf_mine", "repo": "--public"}, ModelError, "invalid-hub-id"),
    ],
)
def test_what_is_missing_or_wrong_is_said_before_a_worker_starts(
    context: AppContext, weak: RunFolder, panel: publish_panel.PublishPanel, asked: dict[str, Any], kind: Any, code: str
) -> None:
    with raises(kind, code):
        ask(context, panel, **{"reason": REASON, **asked})
    assert read_publications(weak) == []


def test_on_a_space_the_signed_in_user_publishes(
    settings: Settings,
    weak: RunFolder,
    panel: publish_panel.PublishPanel,
    started: list[tuple[PublishRequest, str | None]],
) -> None:
    space = make_context(replace(settings, on_space=True, allowed_users=frozenset({"ada"}), token="hf_of_the_space"))
    ada = gr.OAuthProfile({"name": "ada", "preferred_username": "ada", "profile": "", "picture": ""})
    with raises(RunError, "not-signed-in"):
        ask(space, panel)
    ask(space, panel, token="hf_typed", profile=ada, oauth_token=gr.OAuthToken("hf_ada", "contribute-repos", 0))
    ask(space, panel, profile=ada)
    assert [token for _, token in started] == ["hf_ada", None]
    assert started[0][0] == PublishRequest(weak.path / "merged", "merge", True, "")


def test_the_token_box_counts_more_than_the_environment(
    settings: Settings,
    weak: RunFolder,
    panel: publish_panel.PublishPanel,
    started: list[tuple[PublishRequest, str | None]],
) -> None:
    local = make_context(replace(settings, token="hf_environment"))
    assert ask(local, panel, token=" hf_typed ", visibility="public")[panel.token] == ""
    ask(local, panel)
    assert [token for _, token in started] == ["hf_typed", "hf_environment"]
    assert not started[0][0].private


def test_a_worker_uploads_and_the_page_follows_it(
    context: AppContext,
    hub: HubServer,
    weak: RunFolder,
    panel: publish_panel.PublishPanel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    assert ask(context, panel, reason=REASON, token=hub.token)[panel.timer].active
    with raises(RunError, "publish-at-work"):
        ask(context, panel, reason=REASON, token=hub.token)
    with raises(RunError, "publish-at-work"):
        delete_run(weak, context.settings)
    deadline = time.monotonic() + 180
    while not (last := read_publications(weak)[-1]).over:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    log = (weak.path / "publish.log").read_text(encoding="utf-8")
    assert last.state == "published", f"{last.message} {log}"
    html = publish_panel.follow(make_context(context.settings), panel, RUN)[panel.state]
    assert f'href="{hub.url}/someone/merge"' in html and REASON in html
    written = "".join(path.read_text(errors="replace") for path in weak.path.glob("*") if path.is_file())
    assert hub.token not in written


def test_a_worker_that_died_counts_as_failed(
    context: AppContext, weak: RunFolder, panel: publish_panel.PublishPanel
) -> None:
    log = PublicationLog(weak, new_publication("merged", "someone/merge", True, ""))
    log.write(worker={"pid": 1, "start": "ended", "host": "", "machine": "", "boot": "", "pid_namespace": ""})
    followed = publish_panel.follow(context, panel, RUN)
    assert "sm-bad" in followed[panel.state] and not followed[panel.timer].active


def test_names_reasons_and_messages_are_shown_as_text() -> None:
    one = new_publication("merged", "<b>x", True, "").model_copy(update={"message": "<script>", "hint": "<i>"})
    for state in ("uploading", "published", "failed"):
        html = publication_view(one.model_copy(update={"state": state, "override": "<u>", "url": '"><b>'}))
        assert not any(markup in html for markup in ("<b>", "<script>", "<i>", "<u>"))


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
def test_a_visitor_is_asked_for_a_reason_and_the_token_is_forgotten(
    page: Page, served: Served, tiny_llama: Path, width: int
) -> None:
    run_id = f"20260901-101500-{width}"
    saved_run(served.runs / run_id, tiny_llama, merged_safe=10)
    expect.set_options(timeout=60_000)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{served.url}?run={run_id}")
    expect(page.locator("#publish-check")).to_contain_text("less aligned, beyond chance")
    expect(page.locator("#publish-reason")).to_be_visible()
    page.locator("#publish-repo input, #publish-repo textarea").first.fill("merge")
    token = page.locator("#publish-token input")
    assert token.get_attribute("type") == "password"
    token.fill("hf_mine")
    page.locator("#publish-start").click()
    expect(page.locator("#publish-notice")).to_contain_text("It is not published.")
    expect(token).to_have_value("")
    wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert not wide, "the page scrolls sideways"
