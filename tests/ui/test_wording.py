"""The wording that visitors rely on: what is safe, what to do next, and what a number means.

Other tests check keys, codes, classes and values, so that a text can be improved in one place.
"""

from __future__ import annotations

import re
from html import unescape

import gradio as gr
import pytest

from core.contracts.reply_verdicts import GuardAnswer
from core.errors import RunError
from core.evaluation.audit import judge_merge
from core.runs.view import RunView, fold
from core.settings import Settings
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import make_context
from safemerge_ui.boundary import bind_with_notice
from safemerge_ui.comparison_form import comparison_spec
from safemerge_ui.errors import RunIsBusy
from safemerge_ui.tabs.chat import GUARD_NOTE
from safemerge_ui.views.alpha import alpha_view
from safemerge_ui.views.chat_replies import busy_note
from safemerge_ui.views.disputed import _answer
from safemerge_ui.views.markup import covered, error_notice
from safemerge_ui.views.progress import ending, no_run
from safemerge_ui.views.results import result_table
from safemerge_ui.views.side_by_side import side_by_side
from safemerge_ui.views.verdict import verdict_view
from tests.ui.golden import golden_cancelled, golden_events
from tests.ui.golden_replies import golden_audit
from tests.ui.session import built_page


def text_of(html: str) -> str:
    """The text of HTML, as a visitor reads it."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))).strip()


@pytest.fixture(scope="module")
def finished() -> RunView:
    return fold(golden_events())


def test_what_to_do_without_a_run_and_after_a_stop() -> None:
    assert text_of(no_run()) == "No run on this page yet. Launch a merge, or open a run from the Runs tab."
    assert "Its results so far are kept. Resume it here or on the Runs tab." in text_of(
        ending(fold(golden_cancelled()))
    )


def test_errors_say_what_to_do_next() -> None:
    busy = text_of(error_notice(RunIsBusy("20260801-101500-aaaa")))
    assert busy == (
        "The run 20260801-101500-aaaa is in progress on this machine. Follow it, or stop it first. Follow that run"
    )

    def broken() -> dict[object, object]:
        raise ZeroDivisionError

    notice = gr.HTML()
    assert text_of(bind_with_notice(broken, notice)()[notice]) == (
        "SafeMerge ran into an internal error. Nothing was lost. The server log has the details."
    )
    with pytest.raises(Exception, match="Enter one reference per line"):
        comparison_spec([], {})


def test_who_may_start_work_on_a_space(settings: Settings) -> None:
    from dataclasses import replace

    with pytest.raises(RunError, match="Sign in at the top of the page"):
        require_starter(replace(settings, on_space=True), None)


def test_harmful_text_is_announced() -> None:
    assert text_of(covered("", "key")) == "Harmful text: click to show"


def test_the_limits_of_the_phrases_guard_are_stated() -> None:
    assert "recognizes refusals and broken text but not harm" in text_of(GUARD_NOTE)
    assert "The run x shares the machine with the chat" in text_of(busy_note("x"))
    answer = GuardAnswer(guard="phrases", refusal=True, safe=None)
    assert _answer(answer) == "refusal, safety unknown"


def test_numbers_are_explained(finished: RunView) -> None:
    assert "Held-out test prompts; 95 % Wilson intervals." in text_of(result_table(finished))
    table = text_of(side_by_side(finished, "demo/aligned", {}, {}))
    assert "Differences are not tested: the replies of demo/aligned and of another model are not both stored." in table
    explorer = text_of(alpha_view(finished, 0.3))
    assert "The alpha of this run, 0.3, selects the same candidate." in explorer
    assert "no other candidate is better in one loss without being worse in the other" in explorer


def test_a_verdict_states_its_limits(settings: Settings) -> None:
    context = make_context(settings)
    folder, view, *_ = context.watch.look(golden_audit(settings.runs / "r").name)
    verdict = judge_merge(view.models, context.replies.all_rows(folder, view))
    said = text_of(verdict_view("org/merge-7b", verdict, True))
    for sentence in (
        "The merge is less safe than its best parent",
        "−40 percentage points, p < 0.001",
        "Likely cause: org/uncensored-roleplay-7b , the parent with the lowest alignment",
        "not corrected for multiple comparisons",
        "A difference that is not significant may still exist.",
        "The verdict is only as good as the guard.",
    ):
        assert sentence in said, sentence
    assert "not tested" in text_of(verdict_view("m", judge_merge(view.models, {}), True))


@pytest.mark.parametrize(
    "odd",
    ["An own", "genes", "seats", "shel", "whoever", "told", "in words", "for good", "cannot be had", "apple", "colour"],
)
def test_the_page_uses_plain_english(settings: Settings, odd: str) -> None:
    """No label, help text or introduction uses a word that only this project would use."""
    with gr.Blocks() as blocks:
        page = built_page(make_context(settings))
    assert page.fields
    shown = [
        str(value)
        for block in [*blocks.blocks.values(), *page.fields.values()]
        for value in (getattr(block, "label", ""), getattr(block, "info", ""), getattr(block, "placeholder", ""))
    ]
    assert [text for text in shown if re.search(rf"\b{odd}", text)] == []
