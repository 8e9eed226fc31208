"""What a visitor does, clicked through in a real browser on golden runs; the last test runs the demo."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from core.runs.folder import RunFolder
from tests.ui.browsing import open_page, open_tab, show_run
from tests.ui.conftest import PATIENCE_MS, Served
from tests.ui.golden import golden_events, golden_running, write_run

pytestmark = pytest.mark.browser

TABS = ("Story", "Pool", "Data", "Merge", "Evaluate", "Chat", "Audit", "Runs")
RUN_MINUTES = 15


def test_the_first_page_tells_the_story_and_is_two_clicks_from_launch(page: Page, served: Served) -> None:
    elsewhere: list[str] = []
    page.on("request", lambda request: _collect_foreign(request.url, served.url, elsewhere))
    open_page(page, served.url)
    expect(page.locator("#story-head h1")).to_be_visible()
    expect(page.get_by_role("tab")).to_have_text(list(TABS))
    open_tab(page, "Pool")
    expect(page.locator("#pool-launch")).to_be_enabled()
    expect(page.locator(".sm-map")).to_contain_text("demo/aligned")
    expect(page.locator(".sm-map")).to_contain_text("demo/chemistry")
    expect(page.locator("footer")).to_be_hidden()
    assert elsewhere == []


def _collect_foreign(url: str, home: str, elsewhere: list[str]) -> None:
    if not url.startswith((home, "data:", "blob:")):
        elsewhere.append(url)


def test_a_number_that_is_empty_stays_empty_once_it_was_shown(page: Page, served: Served) -> None:
    open_page(page, served.url)
    open_tab(page, "Merge")
    accordions = page.locator(".sm-settings button.label-wrap")
    opened = 0
    while opened < accordions.count():  # an accordion may hold others
        accordions.nth(opened).click()
        opened += 1
        page.wait_for_timeout(300)
    optional = page.locator(".sm-settings [placeholder]:not([placeholder=''])")
    expect(optional).to_have_count(3)
    values = optional.evaluate_all("fields => fields.map(field => field.value)")
    assert "0" not in values and values.count("") == 2


CUT_OFF = """() => [...document.querySelectorAll("input, textarea, button, label, p, h2, h3")]
    .filter(element => element.offsetWidth && element.getBoundingClientRect().right > innerWidth + 1)
    .filter(element => !element.closest(".sm-scroll, .table-wrap, .js-plotly-plot"))
    .map(element => element.id || element.innerText || element.outerHTML)"""
"""Elements that reach beyond the window's edge and cannot be scrolled to."""


@pytest.mark.parametrize("width", [1440, 390])
def test_no_tab_is_wider_than_the_window(page: Page, served: Served, width: int) -> None:
    write_run(served.runs / "20260801-101500-aaaa", golden_events())
    page.set_viewport_size({"width": width, "height": 844})
    show_run(page, served, "20260801-101500-aaaa")
    for name in TABS:
        open_tab(page, name)
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, name
        assert page.evaluate(CUT_OFF) == [], name


def test_a_finished_run_shows_charts_and_results(page: Page, served: Served) -> None:
    write_run(served.runs / "20260801-101500-aaaa", golden_events())
    show_run(page, served, "20260801-101500-aaaa")
    plane = page.locator("#merge-plane")
    for label in ("aligned", "chemistry", "Equal", "Domain-only", "Safety-aware"):
        expect(plane.locator(".textpoint text", has_text=label)).to_be_visible()
    for legend in ("Candidate, estimated", "Best of a generation, measured"):
        expect(plane.locator(".legendtext", has_text=legend)).to_be_visible()
    expect(page.locator("#merge-results tbody tr")).to_have_count(5)
    expect(page.locator("#run-pill")).to_have_text("Finished")


def test_a_finished_run_begins_with_its_verdict_on_merge_and_evaluate(page: Page, served: Served) -> None:
    write_run(served.runs / "20260801-101500-aaaa", golden_events())
    show_run(page, served, "20260801-101500-aaaa")
    for tab in ("merge", "evaluate"):
        open_tab(page, tab.capitalize())
        verdict = page.locator(f"#{tab}-verdict")
        expect(verdict.locator("h2")).to_have_count(1)
        expect(verdict.locator(".sm-figure b")).to_have_text(["89 %", "2 %", "85 %"])


def test_charts_drawn_on_a_hidden_tab_fill_their_panel(page: Page, served: Served) -> None:
    write_run(served.runs / "20260801-101500-aaaa", golden_events())
    page.goto(f"{served.url}?run=20260801-101500-aaaa")
    expect(page.locator("#run-pill .sm-pill")).to_be_visible()
    open_tab(page, "Pool")
    expect(page.locator("#merge-plane .main-svg").first).to_be_attached()
    open_tab(page, "Merge")
    widths = "plot => plot.querySelector('.main-svg').clientWidth - plot.clientWidth"
    for chart in ("#merge-plane", "#merge-front"):
        plot = page.locator(f"{chart} .js-plotly-plot")
        expect(plot).to_be_visible()
        page.wait_for_timeout(500)
        assert plot.evaluate(widths) == 0


def test_a_page_closed_and_reopened_shows_the_same_run(browser: Browser, served: Served) -> None:
    write_run(served.runs / "20260801-101500-aaaa", golden_events())
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    first = context.new_page()
    show_run(first, served, "20260801-101500-aaaa")
    first.wait_for_function("localStorage.getItem('safemerge-run') !== null")
    first.close()
    second = context.new_page()
    open_page(second, served.url)
    expect(second.locator("#merge-line")).to_contain_text("20260801-101500-aaaa")
    second.wait_for_url(re.compile("run=20260801-101500-aaaa"))
    context.close()


def test_every_tab_shows_the_run_on_the_page(page: Page, served: Served) -> None:
    """Hidden tabs receive nothing while the run grows, so each must be brought up to date when it is opened."""
    events = golden_events()
    at = len(golden_running(0.5))
    folder = RunFolder(write_run(served.runs / "20260801-181500-abcf", events[:at]))
    finished = write_run(served.runs / "20260801-191500-abcd", events).name
    show_run(page, served, folder.run_id)
    open_tab(page, "Data")
    expect(page.locator("#data-cards article").first).to_be_visible()
    open_tab(page, "Pool")
    for event in events[at:]:
        folder.append_event(event)
    expect(page.locator("#run-pill")).to_have_text("Finished")
    open_tab(page, "Evaluate")
    expect(page.locator("#evaluate-table tbody tr")).to_have_count(5)
    open_tab(page, "Merge")
    expect(page.locator("#merge-results tbody tr")).to_have_count(5)
    open_tab(page, "Runs")
    page.locator(f"[data-open='{finished}']").click()
    expect(page.locator("#merge-line")).to_contain_text(finished)
    open_tab(page, "Evaluate")
    expect(page.locator("#evaluate-line")).to_contain_text(finished)
    page.reload()
    expect(page.locator("#evaluate-line")).to_contain_text(finished)
    open_tab(page, "Data")
    expect(page.locator("#data-cards article").first).to_be_visible()


def test_a_run_is_followed_while_it_grows(page: Page, served: Served) -> None:
    events = golden_events()
    at = len(golden_running(0.45))
    folder = RunFolder(write_run(served.runs / "20260801-111500-bbbb", events[:at]))
    show_run(page, served, folder.run_id)
    expect(page.locator("#run-pill")).to_contain_text("Search")
    expect(page.locator("#merge-results tbody tr")).to_have_count(2)
    for event in events[at:]:
        folder.append_event(event)
    expect(page.locator("#run-pill")).to_have_text("Finished")
    expect(page.locator("#merge-results tbody tr")).to_have_count(5)
    expect(page.locator("#merge-stop")).to_be_disabled()


def test_a_bad_value_is_explained_beside_the_form(page: Page, served: Served) -> None:
    open_page(page, served.url)
    open_tab(page, "Pool")
    page.locator("#pool-base textarea").fill("")
    page.locator("#pool-check").click()
    expect(page.locator("#pool-notice .sm-notice")).to_be_visible()
    page.locator("#pool-base textarea").fill("/no/such/folder")
    page.locator("#pool-check").click()
    expect(page.locator("#pool-checks .sm-notice.sm-bad")).to_be_visible()
    expect(page.locator("#pool-notice")).to_have_text("")


def test_a_spec_file_fills_the_form(page: Page, served: Served, tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text(
        "pool: {base: org/base, generator: org/writer, experts: [{model: org/maths}, {model: org/law}]}\n"
        "search: {steps: 7, method: linear}\n",
        encoding="utf-8",
    )
    open_page(page, served.url)
    open_tab(page, "Pool")
    page.locator("#pool-spec > button").click()
    with page.expect_file_chooser() as chooser:
        page.locator("#spec-upload").click()
    chooser.value.set_files(spec)
    expect(page.locator(".sm-map")).to_contain_text("org/law")
    expect(page.get_by_label("Expert 2")).to_have_value("org/law")
    page.locator("#spec-write").click()
    expect(page.locator("#spec-yaml")).to_contain_text("steps: 7")


def test_a_run_is_deleted_after_a_second_click(page: Page, served: Served) -> None:
    folder = write_run(served.runs / "20260801-141500-eeee", golden_events())
    open_page(page, served.url)
    open_tab(page, "Runs")
    page.locator("[data-delete='20260801-141500-eeee']").click()
    expect(page.locator("#runs-question")).to_contain_text("20260801-141500-eeee")
    assert folder.exists()
    page.locator("#runs-confirm").click()
    expect(page.locator("[data-delete='20260801-141500-eeee']")).to_have_count(0)
    assert not folder.exists()


def test_a_run_is_opened_from_the_history(page: Page, served: Served) -> None:
    write_run(served.runs / "20260801-151500-ffff", golden_events())
    open_page(page, served.url)
    open_tab(page, "Runs")
    page.locator("[data-open='20260801-151500-ffff']").click()
    expect(page.locator("#merge-line")).to_contain_text("20260801-151500-ffff")
    expect(page.get_by_role("tab", name="Merge")).to_have_attribute("aria-selected", "true")


def test_an_example_prompt_is_copied_into_the_field(page: Page, served: Served) -> None:
    open_page(page, served.url)
    open_tab(page, "Chat")
    cover = page.locator(".sm-prompts details").first
    words = cover.locator(".sm-question")
    expect(words).to_be_hidden()
    cover.locator("summary").click()
    expect(words).to_be_visible()
    cover.locator("[data-ask]").click()
    expect(page.locator("#chat-prompt textarea")).to_have_value(words.inner_text())
    expect(page.get_by_label("Harmful", exact=True)).to_be_checked()


def test_another_alpha_ranks_the_candidates_anew(page: Page, served: Served) -> None:
    write_run(served.runs / "20260801-161500-abcd", golden_events())
    show_run(page, served, "20260801-161500-abcd")
    explorer = page.locator("#merge-explorer")
    selected = explorer.locator("tbody").last.locator("tr:has(b)")
    expect(selected).to_have_count(1)
    alpha = page.locator("#merge-alpha input[type='number']")
    alpha.fill("0")
    alpha.blur()
    expect(explorer.locator("tbody").last.locator("tr").first.locator("b")).to_have_count(1)  # safest first
    alpha.fill("2")
    alpha.blur()
    expect(explorer.locator("tbody").last.locator("tr").first.locator("b")).to_have_count(0)


@pytest.mark.demo
def test_the_quick_demo_from_launch_to_chat(page: Page, served: Served) -> None:
    """Launch the quick demo, stop and resume it, watch the chart fill, ask two merges the same, evaluate, and audit."""
    page.set_default_timeout(RUN_MINUTES * 60_000)
    open_page(page, served.url)
    open_tab(page, "Pool")
    page.get_by_label("Quick demo").check()
    expect(page.locator(".sm-plan")).to_contain_text("12 candidates")
    page.locator("#pool-launch").click()
    plane = page.locator("#merge-plane")
    minutes = RUN_MINUTES * 60_000
    expect(page.locator("#run-pill")).to_contain_text("Search", timeout=minutes)
    expect(plane.locator(".legendtext", has_text="Candidate, estimated")).to_be_visible(timeout=minutes)
    _stop_and_resume(page)
    expect(page.locator("#run-pill")).to_have_text("Finished", timeout=minutes)
    for label in ("aligned", "chemistry", "Equal", "Domain-only", "Safety-aware"):
        expect(plane.locator(".textpoint text", has_text=label)).to_be_visible()
    expect(page.locator("#merge-results tbody tr")).to_have_count(5)
    expect(page.locator("#merge-verdict .sm-verdict-good")).to_be_visible()
    _ask_both(page)
    _check_the_measurements(page)
    _audit_the_merge(page, next(served.runs.glob("*/merged")))


def _stop_and_resume(page: Page) -> None:
    page.locator("#merge-stop").click()
    expect(page.locator("#run-pill")).to_have_text("Stopped")
    open_tab(page, "Runs")
    page.locator("[data-resume]").first.click()
    expect(page.get_by_role("tab", name="Merge")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#run-pill")).not_to_have_text("Stopped")


def _ask_both(page: Page) -> None:
    open_tab(page, "Chat")
    expect(page.get_by_label("Model A")).to_have_value("Domain-only search")
    expect(page.get_by_label("Model B")).to_have_value("Safety-aware merge")
    cover = page.locator(".sm-prompts details").first
    cover.locator("summary").click()
    cover.locator("[data-ask]").click()
    expect(page.locator("#chat-prompt textarea")).not_to_have_value("")
    page.locator("#chat-send").click()
    replies = page.locator("#chat-replies .sm-chat-done")
    expect(replies).to_have_count(2, timeout=RUN_MINUTES * 60_000)
    for index in range(2):
        expect(replies.nth(index).locator(".sm-badge")).to_have_text(re.compile("Refused|Complied|Broken text"))


def _check_the_measurements(page: Page) -> None:
    open_tab(page, "Evaluate")
    expect(page.locator("#evaluate-table tbody tr")).to_have_count(5)
    domain_only = page.locator("#evaluate-table tr", has_text="Domain-only search")
    expect(domain_only.locator(".sm-mark-bad").first).to_be_visible()
    expect(page.locator("#replies-cards article").first).to_be_visible()
    expect(page.locator("#replies-cards .sm-question").first).to_be_hidden()


def _audit_the_merge(page: Page, merged: Path) -> None:
    open_tab(page, "Audit")
    page.locator("#audit-merge textarea, #audit-merge input").fill(str(merged))
    page.locator("#audit-find").click()
    expect(page.locator("#audit-parents textarea")).to_have_value(re.compile("demo/aligned\\s+demo/chemistry"))
    page.locator("#audit-measurement > button").click()
    page.locator("#audit-limit input").fill("14")
    page.locator("#audit-launch").click()
    expect(page.locator("#audit-table tbody tr")).to_have_count(3, timeout=RUN_MINUTES * 60_000)
    expect(page.locator("#run-pill")).to_have_text("Finished", timeout=RUN_MINUTES * 60_000)
    expect(page.locator("#audit-verdict")).to_contain_text("demo/chemistry")
