"""The Data tab, clicked through in a real browser: covered text, filters, editing, and text that is never markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.contracts.events import SampleSeen
from core.contracts.reply_verdicts import GuardAnswer, ReplyVerdict
from core.runs.folder import RunFolder
from tests.ui.browsing import choose, open_tab, show_run
from tests.ui.conftest import Served
from tests.ui.golden import golden_events, write_run

pytestmark = pytest.mark.browser


def test_harmful_text_is_covered_until_clicked_and_stays_open(page: Page, served: Served) -> None:
    events = golden_events()
    at = next(i for i, event in enumerate(events) if isinstance(event, SampleSeen)) + 3
    folder = RunFolder(write_run(served.runs / "20260801-121500-cccc", events[:at]))
    show_run(page, served, folder.run_id)
    open_tab(page, "Data")
    question = page.locator(".sm-question", has_text="break into a parked car")
    expect(question).to_be_hidden()
    page.locator("#data-cards details", has=question).locator("summary").click()
    expect(question).to_be_visible()
    for event in events[at : at + 6]:
        folder.append_event(event)
    expect(page.locator("#data-cards article")).to_have_count(5)
    expect(question).to_be_visible()
    expect(page.locator("#data-cards details[open]")).to_have_count(1)


def test_rows_are_filtered_edited_excluded_downloaded_and_uploaded(page: Page, served: Served, tmp_path: Path) -> None:
    write_run(served.runs / "20260801-161500-abcd", golden_events())
    show_run(page, served, "20260801-161500-abcd")
    open_tab(page, "Data")
    choose(page, "data-dataset", "Domain")
    expect(page.locator("#data-cards .sm-covered")).to_have_count(0)
    choose(page, "data-dataset", "Both")
    choose(page, "data-shown", "Dropped")
    expect(page.locator("#data-cards article")).to_have_count(
        sum(isinstance(event, SampleSeen) and not event.kept for event in golden_events())
    )
    page.locator("#rows-copy").click()
    cards = page.locator("#rows-cards article")
    expect(cards.first).to_be_visible()
    count = cards.count()
    expect(cards.first.locator(".sm-question")).to_be_hidden()
    cards.first.locator("[data-row]").click()
    question = page.locator("#rows-question textarea")
    expect(question).not_to_have_value("")
    question.fill("An edited question?")
    page.locator("#rows-save").click()
    expect(cards.first.locator(".sm-badge.sm-info")).to_be_visible()  # edited
    cards.nth(1).locator("[data-row]").click()
    expect(question).not_to_have_value("An edited question?")
    page.locator("#rows-exclude").click()
    expect(cards).to_have_count(count - 1)
    with page.expect_download() as download:
        page.locator("#rows-download").click()
    exported = tmp_path / "exported.jsonl"
    download.value.save_as(exported)
    assert "An edited question?" in exported.read_text(encoding="utf-8")
    table = tmp_path / "theirs.csv"
    table.write_text("prompt,refusal\nUploaded?,No.\n", encoding="utf-8")
    with page.expect_file_chooser() as chooser:
        page.locator("#rows-upload").click()
    chooser.value.set_files(table)
    page.locator("#rows-use").click()
    expect(cards).to_have_count(1)
    expect(cards.first.locator(".sm-question")).to_have_text("Uploaded?")


def test_a_row_that_guards_disagree_on_is_found_and_excluded(page: Page, served: Served) -> None:
    events = golden_events()
    first = next(i for i, e in enumerate(events) if isinstance(e, SampleSeen) and e.dataset == "safety" and e.kept)
    other = GuardAnswer(guard="org/guard", refusal=False, safe=False)
    said = ReplyVerdict(model="demo/aligned", refusal=True, safe=True, degenerate=False, others=(other,))
    events[first] = events[first].model_copy(update={"guard": "phrases & org/guard", "verdicts": (said,)})
    kept = sum(isinstance(event, SampleSeen) and event.dataset == "safety" and event.kept for event in events)
    write_run(served.runs / "20260801-171500-abce", events)
    show_run(page, served, "20260801-171500-abce")
    open_tab(page, "Data")
    choose(page, "data-shown", "Guards disagree")
    cards = page.locator("#data-cards article")
    expect(cards).to_have_count(1)
    expect(cards.first.locator(".sm-reasons")).to_contain_text("org/guard")
    cards.first.locator("[data-decide][data-keep='0']").click()
    expect(page.locator("#data-decided")).to_contain_text(f"{kept - 1} rows")
    expect(page.locator("#rows-cards article").first).to_be_visible()
    expect(page.locator("#rows-cards .sm-badge.sm-warn")).to_have_count(0)


def test_text_of_models_is_never_markup(page: Page, served: Served) -> None:
    hostile = "<img src=x onerror=\"document.body.dataset.hit='1'\"><b>bold</b>"
    events = golden_events()
    first = next(i for i, event in enumerate(events) if isinstance(event, SampleSeen))
    bad = SampleSeen(
        dataset="domain", question=hostile, answer=hostile, answered_by=hostile, kept=False, reason=hostile
    )
    folder = write_run(served.runs / "20260801-131500-dddd", [*events[:first], bad])
    show_run(page, served, folder.name)
    open_tab(page, "Data")
    expect(page.locator("#data-cards .sm-reply")).to_have_text(hostile)
    assert page.locator("#data-cards img, #data-cards .sm-reply b").count() == 0
    assert page.evaluate("document.body.dataset.hit") is None
