"""Chatting in a real browser with models that are slow on purpose: two prompts at once, stop, blind mode, export."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from core.guards.phrases import PhrasesGuard
from safemerge_ui.model_cache import ModelCache
from tests.ui.browsing import open_page, open_tab
from tests.ui.conftest import Served

pytestmark = pytest.mark.browser


SENTENCE = [
    "Carbon", "is", "a", "chemical", "element", "with", "the", "symbol", "C", "and", "six", "electrons;", "its",
    "atoms", "form", "four", "bonds,", "which", "is", "why", "so", "many", "different", "compounds", "exist",
]  # fmt: skip


@pytest.fixture(autouse=True)
def slow_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(_self: Any, ref: Any, conversation: Any, _decoding: Any) -> Iterator[str]:
        words = (SENTENCE * 20)[: int(conversation[-1]["content"].split()[-1])]
        for count in range(1, len(words) + 1):
            time.sleep(0.4 if "slowly" in conversation[-1]["content"] else 0.1)
            yield f"**{str(ref).rsplit('/', 1)[-1]}** " + " ".join(words[:count])

    monkeypatch.setattr(ModelCache, "stream", stream)
    monkeypatch.setattr(ModelCache, "holds", lambda _self, _ref: True)
    monkeypatch.setattr(ModelCache, "judge", lambda _self, _guard, *pair: PhrasesGuard().judge([pair])[0])


def ask(page: Page, prompt: str) -> None:
    page.locator("#chat-prompt textarea").fill(prompt)
    page.locator("#chat-send").click()
    expect(page.locator("#chat-prompt textarea")).to_have_value("")


def test_two_prompts_at_once_are_both_answered_and_the_text_grows(page: Page, served: Served) -> None:
    open_page(page, served.url)
    open_tab(page, "Chat")
    ask(page, "count slowly to 25")
    replies = page.locator("#chat-replies .sm-chat")
    expect(replies.first).to_contain_text("chemical")
    expect(replies.first).not_to_contain_text("compounds")
    ask(page, "count to 2")
    expect(replies).to_have_count(4)
    expect(replies.first).to_contain_text("Waiting for its turn")
    expect(page.locator("#chat-replies .sm-chat-done")).to_have_count(4)
    expect(replies.nth(2).locator(".sm-badge")).to_have_text("Complied")
    expect(replies.first.locator(".sm-written b")).to_have_text("chemistry")


def test_stop_regenerate_and_edit(page: Page, served: Served) -> None:
    open_page(page, served.url)
    open_tab(page, "Chat")
    ask(page, "count to 300")
    expect(page.locator("#chat-replies .sm-chat").first).to_contain_text("chemical")
    page.locator("#chat-stop").click()
    expect(page.locator("#chat-replies .sm-chat-stopped")).to_have_count(2)
    page.locator("#chat-edit").click()
    expect(page.locator("#chat-prompt textarea")).to_have_value("count to 300")
    ask(page, "count to 2")
    expect(page.locator("#chat-replies .sm-chat-done")).to_have_count(2)
    page.locator("#chat-again").click()
    expect(page.locator("#chat-replies .sm-chat-done")).to_have_count(2)
    page.locator("#chat-clear").click()
    expect(page.locator("#chat-replies .sm-exchange")).to_have_count(0)


def test_blind_mode_and_the_export(page: Page, served: Served, tmp_path: Path) -> None:
    open_page(page, served.url)
    open_tab(page, "Chat")
    page.locator("#chat-blind input").check()
    ask(page, "count to 2")
    expect(page.locator("#chat-replies [data-guess]")).to_have_count(2)
    expect(page.locator("#chat-replies header b").first).to_have_text("Reply 1")
    page.locator("#chat-replies [data-guess]").first.click()
    expect(page.locator("#chat-tally")).to_contain_text("Better:")
    with page.expect_download() as download:
        page.locator("#chat-export").click()
    download.value.save_as(tmp_path / "chat.json")
    [exchange] = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))
    assert exchange["prompt"] == "count to 2" and len(exchange["replies"]) == 2


def test_address_theme_and_back(page: Page, served: Served) -> None:
    open_page(page, f"{served.url}?tab=chat&run=nope")
    expect(page.get_by_role("tab", name="Chat")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#run-pill")).to_contain_text("nope")
    open_tab(page, "Runs")
    page.wait_for_url("**tab=runs**")
    open_tab(page, "Pool")
    page.wait_for_url("**tab=pool**")
    page.go_back()
    expect(page.get_by_role("tab", name="Runs")).to_have_attribute("aria-selected", "true")
    page.get_by_role("button", name="Theme").click()
    expect(page.locator("body")).to_have_class("dark")
    page.reload()
    expect(page.get_by_role("tab", name="Runs")).to_have_attribute("aria-selected", "true")
    expect(page.locator("body")).to_have_class("dark")
