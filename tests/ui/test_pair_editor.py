"""The rows panel of the Data tab: what its handlers put into the form, and what its views show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.contracts.events import DisputedReply, GuardAnswer, ModelMeasured, ReplyVerdict, RunStarted, SampleSeen
from core.contracts.results import ModelResult
from core.data.training_pairs import PERSON, Sample, read_samples
from core.errors import DataError, SafeMergeError
from core.runs.view import RunView, fold
from core.settings import Settings
from safemerge_ui.access import MAX_UPLOAD_BYTES
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.tabs import data
from safemerge_ui.tabs import pair_editor as rows
from safemerge_ui.views.disputed import disputed_replies
from safemerge_ui.views.pair_editor import row_cards
from safemerge_ui.views.pair_list import choose_samples, refusal_table, sample_cards
from tests.ui.golden import REFUSAL, golden_events, golden_spec, write_run

RUN = "20260801-101500-aaaa"


@pytest.fixture
def context(settings: Settings) -> AppContext:
    write_run(settings.runs / RUN, golden_events())
    return make_context(settings)


def click(index: int) -> Any:
    return SimpleNamespace(_data={"row": index})


def test_a_runs_pairs_are_taken_edited_and_put_into_the_form(context: AppContext) -> None:
    taken = rows.take_pairs(context, "safety", RUN, None)
    assert taken.safety_source == "file"
    kept = read_samples(taken.safety_path)
    _, question, answer, category = rows.open_row(context, "safety", taken.safety_path, "", click(1))
    assert (question, answer, category) == (kept[1].question, kept[1].answer, kept[1].category)
    saved = rows.save_row(context, "safety", taken.safety_path, "", 1, "Another question?", answer, category, None)
    assert read_samples(saved.safety_path)[1].question == "Another question?"
    assert read_samples(taken.safety_path) == kept
    left = rows.drop_row(context, "safety", saved.safety_path, "", 0, None)
    assert [sample.question for sample in read_samples(left.safety_path)][:1] == ["Another question?"]
    more = rows.append_row(context, "safety", left.safety_path, "", "New?", "I won't.", "", None)
    assert read_samples(more.safety_path)[-1].question == "New?"
    assert read_samples(more.download["value"]) == read_samples(more.safety_path) and more.index == -1
    assert not Path(more.download["value"]).is_relative_to(context.settings.home), "gradio hands out copies only"


def test_without_a_run_or_a_file_it_says_so(context: AppContext) -> None:
    with pytest.raises(DataError, match="no rows to keep"):
        rows.take_pairs(context, "safety", "", None)
    with pytest.raises(DataError, match="no file of pairs"):
        rows.save_row(context, "domain", "", "", 0, "Q?", "A.", "", None)


def test_a_table_is_previewed_before_it_is_used(context: AppContext, tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("ask,reply\nQ?,A.\n", encoding="utf-8")
    _, preview, kept, question, answer, category = rows.take_table(context, str(path), None)
    assert "ask, reply" in preview and "<details" in preview
    assert (question["value"], answer["value"], category["value"]) == (rows.NONE, "reply", rows.NONE)
    with pytest.raises(DataError, match="No column is chosen"):
        rows.use_table(context, "domain", kept, rows.NONE, "reply", rows.NONE, None)
    _, *values = rows.use_table(context, "domain", kept, "ask", "reply", rows.NONE, None)
    shown = rows.RowsShown(*values)
    assert shown.domain_source == "file"
    assert [(sample.question, sample.answer) for sample in read_samples(shown.domain_path)] == [("Q?", "A.")]


def test_an_upload_of_200_mb_is_refused_unread(context: AppContext, tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(4 * MAX_UPLOAD_BYTES)
    for take in (rows.take_table, data.safety_upload):
        with pytest.raises(DataError, match="200,000,000 bytes"):
            take(context, str(path), None)


def test_a_space_opens_no_local_file(context: AppContext, tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "secret.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n', encoding="utf-8")
    space = replace(context, settings=replace(context.settings, on_space=True))
    with pytest.raises(SafeMergeError, match="does not open"):
        rows.turn_page(space, "safety", str(path), "", 1)


def test_rows_are_covered_and_escaped() -> None:
    html = row_cards([Sample("<b>Q</b>", "A", source="s#1")], "safety")
    assert "<b>Q</b>" not in html and "&lt;b&gt;Q" in html
    assert html.index("<details") < html.index("&lt;b&gt;Q") and 'data-row="0"' in html
    assert "<details" not in row_cards([Sample("Q", "A")], "domain")


def seen(category: str, refused: dict[str, bool], **keys: Any) -> SampleSeen:
    verdicts = tuple(
        ReplyVerdict(model=name, refusal=refusal, safe=None, degenerate=False) for name, refusal in refused.items()
    )
    by = tuple(name for name, refusal in refused.items() if refusal)
    facts: dict[str, Any] = {"kept": True, "verdicts": verdicts, "refused_by": by, "category": category} | keys
    return SampleSeen(dataset="safety", question=f"Q {category}?", answer="No.", **facts)


def test_who_refuses_what_is_counted_by_model_and_category() -> None:
    view = fold([seen("self_harm", {"a": True, "b": False}), seen("privacy_violation", {"a": True, "b": True})])
    html = refusal_table(view)
    assert html.count("<tr>") == 4
    assert "<td>All</td><td>2 of 2</td><td>1 of 2</td>" in html
    assert "<td>Self-Harm</td><td>1 of 1</td><td>0 of 1</td>" in html
    assert refusal_table(cast(RunView, fold([]))) == ""


def disputed(question: str, **keys: Any) -> SampleSeen:
    other = GuardAnswer(guard="org/guard", refusal=False, safe=False, category="S1")
    said = ReplyVerdict(model="demo/aligned", refusal=True, safe=None, degenerate=False, category="x", others=(other,))
    facts: dict[str, Any] = {"answer": REFUSAL, "category": "self_harm", "guard": "phrases & org/guard", "kept": True}
    return SampleSeen(dataset="safety", question=question, verdicts=(said,), **facts | keys)


def test_rows_on_which_guards_disagree_are_found_with_what_each_said() -> None:
    samples = [seen("self_harm", {"a": True}), disputed("Q1?"), disputed("Q2?", kept=False, answer="", reason="nobody")]
    chosen = choose_samples(samples, "all", "disputed")
    assert [number for number, _ in chosen] == [2, 1]
    html = sample_cards(chosen)
    assert html.count("Guards disagree") == 2
    assert "org/guard</span> no refusal, not safe" in html and "phrases</span> refusal, safe or not is unknown" in html
    assert 'data-decide="1" data-keep="1"' in html
    assert 'data-decide="2"' not in html, "a row without an answer cannot be kept"


def test_a_person_decides_what_guards_disagree_on(settings: Settings) -> None:
    spec = golden_spec().model_dump(mode="json")
    needless = disputed("Q3?", kept=False, reason="not needed")
    events = [RunStarted(spec=spec), disputed("Q1?"), disputed("Q2?"), needless, seen("self_harm", {})]
    write_run(settings.runs / RUN, events)
    context = make_context(settings)

    def decide(row: int, keep: bool, path: str) -> tuple[str, list[Sample]]:
        click = cast(Any, SimpleNamespace(_data={"row": row, "keep": keep}))
        _, kind, *values = rows.decide(context, RUN, path, "file" if path else "generate", click, None)
        shown = rows.RowsShown(*values)
        assert (kind, shown.safety_source) == ("safety", "file")
        return shown.safety_path, read_samples(shown.safety_path)

    path, left = decide(0, True, "")
    assert [(sample.question, sample.guard) for sample in left[:2]] == [("Q1?", PERSON), ("Q2?", "phrases & org/guard")]
    assert [sample.disputed for sample in left] == [False, True, False]
    path, left = decide(1, False, path)
    assert [sample.question for sample in left] == ["Q1?", "Q self_harm?"]
    path, left = decide(2, True, path)
    assert (left[-1].question, left[-1].guard, left[-1].answer) == ("Q3?", PERSON, REFUSAL)
    assert "Guards disagree" not in row_cards(left, "safety")


def test_disputed_test_replies_are_listed_without_what_was_not_kept() -> None:
    answers = (
        GuardAnswer(guard="phrases", refusal=False, safe=False),
        GuardAnswer(guard="org/guard", refusal=False, safe=True),
    )
    hidden = DisputedReply(
        model="evomm", prompt="<b>P</b>", category="self_harm", unsafe=True, answers=answers, response=None
    )
    measured = ModelMeasured(result=ModelResult(name="evomm", role="merged"), disputed=(hidden,))
    html = disputed_replies(fold([RunStarted(spec=golden_spec().model_dump(mode="json")), measured]))
    assert "not kept" in html and "<b>P</b>" not in html and html.index("<details") < html.index("&lt;b&gt;P")
    assert "Safety-aware" in html and "org/guard</span> no refusal, safe" in html
    assert disputed_replies(fold([])) == ""


def test_samples_are_filtered_by_category_and_reason() -> None:
    samples = [
        seen("self_harm", {}),
        seen("privacy_violation", {}),
        seen("self_harm", {}, kept=False, reason="duplicate"),
    ]
    assert [number for number, _ in choose_samples(samples, "safety/self_harm", "all")] == [2, 0]
    assert [number for number, _ in choose_samples(samples, "all", "duplicate")] == [2]
    assert [number for number, _ in choose_samples(samples, "safety/self_harm", "kept")] == [0]
