"""The page opens a run of an earlier version whose search was removed."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from core.errors import RunError, SpecError
from core.settings import Settings
from safemerge_ui import api
from safemerge_ui.app import fill_from_run
from safemerge_ui.app_context import make_context
from safemerge_ui.charts.front import front_figure
from safemerge_ui.tabs import chat_models, pair_editor
from safemerge_ui.views.names import search_facts
from tests.earlier_run import ESTIMATED, REMOVED, earlier_run
from tests.raising import raises
from tests.ui.browsing import open_tab, show_run
from tests.ui.conftest import Served
from tests.ui.session import built_page

RUN = "20260701-101500-aaaa"


def test_what_reads_its_spec_accepts_it(settings: Settings) -> None:
    earlier_run(settings.runs / RUN)
    context = make_context(settings)
    watched = context.watch.look(RUN)
    assert REMOVED in search_facts(watched.view.spec["search"])
    assert chat_models._members(chat_models._spec_on_page(context, watched)) == ["demo/aligned", "demo/chemistry"]
    assert pair_editor._provenances(context, "safety", RUN) is not None


def test_no_estimate_is_drawn(settings: Settings) -> None:
    earlier_run(settings.runs / RUN)
    figure = front_figure(make_context(settings).watch.look(RUN).view)
    drawn = next(trace for trace in figure.data if trace.name == "Candidate")
    assert len(drawn.x) == 29 - len(ESTIMATED) and 0.0 not in drawn.x


def test_the_endpoint_does_not_resume_it(settings: Settings) -> None:
    earlier_run(settings.runs / RUN, finished=False)
    with raises(RunError, "search-removed"):
        api.resume(make_context(settings), RUN, None)


def test_its_form_is_not_filled_and_the_notice_says_why(settings: Settings) -> None:
    run = earlier_run(settings.runs / RUN)
    context = make_context(settings)
    page = built_page(context)
    with pytest.raises(SpecError) as caught:
        fill_from_run(context, page, RUN)
    assert [(problem.place, problem.kind) for problem in caught.value.problems] == [
        ("search.optimizer", "removed_name")
    ]
    run.spec_path.write_text(run.spec_path.read_text().replace(REMOVED, "evomm"))
    assert page.fields["optimizer"] in fill_from_run(context, page, RUN)


@pytest.mark.browser
def test_every_tab_shows_it(page: Page, served: Served) -> None:
    earlier_run(served.runs / RUN)
    show_run(page, served, RUN)
    expect(page.locator("#run-pill")).to_have_text("Finished")
    expect(page.locator("#merge-results tbody tr")).to_have_count(5)
    expect(page.locator("#merge-line")).to_contain_text(REMOVED)
    expect(page.locator("#merge-notice")).to_contain_text(f"'{REMOVED}' was removed")
    for tab in ("Data", "Evaluate", "Chat", "Runs", "Merge"):
        open_tab(page, tab)
        page.wait_for_timeout(500)
        expect(page.locator(".toast-body.error")).to_have_count(0)
    expect(page.locator("body")).to_contain_text("racing scored on a part of the pairs are not shown")
