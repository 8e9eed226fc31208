"""The Story tab in a real browser, at the width of a desk and of a phone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.ui.browsing import open_tab
from tests.ui.conftest import Served

pytestmark = pytest.mark.browser

SIZES = [(1440, 900), (390, 844)]


def open_act(page: Page, served: Served, act: int) -> None:
    page.goto("about:blank")
    page.goto(f"{served.url}?story={act}")
    expect(page.locator(f"#story-acts [data-act='{act}'][aria-current]")).to_be_visible()


@pytest.mark.parametrize("size", SIZES)
def test_each_act_is_one_screen(page: Page, served: Served, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(reduced_motion="reduce")
    for act in range(1, 6):
        open_act(page, served, act)
        if act in (2, 3, 5):
            expect(page.locator("#story-plot .main-svg").first).to_be_visible()
        bottom = page.locator("#story-next").evaluate("button => button.getBoundingClientRect().bottom")
        assert bottom <= size[1], act
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, act
        expect(page.locator("#story-head h1")).to_have_count(1)


@pytest.mark.parametrize("size", SIZES)
def test_a_first_visitor_walks_through_the_story(page: Page, served: Served, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(served.url)
    expect(page.locator("#story-head h1")).to_contain_text("One model refuses")
    expect(page.locator("#story-body .sm-question").first).to_be_hidden()
    page.locator("#story-body summary").first.click()
    expect(page.locator("#story-body .sm-question").first).to_be_visible()
    page.locator("#story-next").click()
    expect(page.locator("#story-head h1")).to_contain_text("stops refusing")
    expect(page.locator(".sm-figure-skill b")).to_have_text("12 %")  # the search has been played to its end
    assert page.locator("#story-plot .scatterlayer .point").count() > 40
    page.wait_for_url(re.compile("story=2"))
    page.locator("#story-acts [data-act='3']").click()
    expect(page.locator(".sm-figure-safe b")).to_have_text("84 %")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#story-replies")).to_contain_text("Did not refuse")
    page.get_by_label("Chemistry", exact=True).check()
    expect(page.locator("#story-replies")).to_contain_text("atomic number")
    page.locator("#story-next").click()
    expect(page.locator("#story-next")).to_be_disabled()
    page.locator("[data-tab='Pool']").click()
    expect(page.locator("#pool-launch")).to_be_visible()
    page.wait_for_function("!new URL(location).searchParams.has('story')")


def test_the_story_is_presented_alone_and_plays_by_itself(page: Page, served: Served) -> None:
    open_act(page, served, 1)
    page.locator("#story-present").click()
    expect(page.get_by_role("tab", name="Pool")).to_be_hidden()
    expect(page.locator("#story-head h1")).to_be_visible()
    page.locator("#story-play").click()
    expect(page.locator("#story-play")).to_have_text("Pause")
    expect(page.locator("#story-acts [data-act='2'][aria-current]")).to_be_visible()
    page.locator("#story-play").click()
    expect(page.locator("#story-play")).to_have_text("Play")
    page.locator("#story-present").click()
    expect(page.get_by_role("tab", name="Pool")).to_be_visible()
    open_tab(page, "Runs")
    expect(page.locator("#story-head")).to_be_hidden()
