"""The pair editor of the Data tab: what its handlers enter into the form, and what its views show."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gradio as gr
import pytest

from core.contracts.events import ModelMeasured, RunStarted, SampleSeen
from core.contracts.reply_verdicts import DisputedReply, GuardAnswer, ReplyVerdict
from core.contracts.results import ModelResult
from core.data.training_pairs import PERSON, Sample, read_samples
from core.errors import DataError, SafeMergeError
from core.runs.view import RunView, fold
from core.settings import Settings
from safemerge_ui.access import MAX_UPLOAD_BYTES
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.boundary import Updates
from safemerge_ui.tabs import data, pair_editor
from safemerge_ui.views.disputed import disputed_replies
from safemerge_ui.views.pair_list import choose_samples, refusal_table, sample_cards
from safemerge_ui.views.pair_rows import row_cards
from tests.ui.golden import REFUSAL, golden_events, golden_spec, write_run
from tests.ui.session import built_page

RUN = "20260801-101500-aaaa"


@pytest.fixture
def context(settings: Settings) -> AppContext:
    write_run(settings.runs / RUN, golden_events())
    return make_context(settings)


class Visitor:
    """The form and the editor as one visitor fills them; `safety` and `domain` are the paths in the form."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.page = built_page(context)
        self.editor = self.page.data.editor
        self.run_id = self.page.run.run_id
        self.values: dict[Any, Any] = {self.run_id: RUN, self.editor.dataset: "safety", self.editor.row: -1}
        for name in ("safety", "domain"):
            path, source = pair_editor.form_fields(self.editor, cast(Any, name))
            self.values |= {path: "", source: "generate"}

    def apply(self, updates: Updates) -> Updates:
        """Take over what a handler filled."""
        self.values |= updates
        return updates

    def write(self, question: str, answer: str = "", category: str = "") -> None:
        """Type into the editor."""
        self.values |= dict(zip(self.editor.texts.values(), (question, answer, category), strict=True))

    def samples(self, dataset: str = "safety") -> list[Sample]:
        """The rows of the file that the form names."""
        path, source = pair_editor.form_fields(self.editor, cast(Any, dataset))
        assert self.values[source] == "file"
        return read_samples(self.values[path])


@pytest.fixture
def visitor(context: AppContext) -> Visitor:
    return Visitor(context)


def click(row: int, **more: Any) -> gr.EventData:
    """What a button in a card sends."""
    return gr.EventData(None, {"row": row, **more})


def test_a_runs_pairs_are_copied_edited_and_entered_into_the_form(visitor: Visitor) -> None:
    context, editor = visitor.context, visitor.editor
    visitor.apply(pair_editor.copy_pairs(context, editor, visitor.run_id, visitor.values, None))
    kept, path = visitor.samples(), visitor.values[pair_editor.form_fields(editor, "safety")[0]]
    visitor.apply(pair_editor.edit_card(context, editor, visitor.values, click(1)))
    assert visitor.values[editor.row] == 1
    loaded = [visitor.values[field] for field in editor.texts.values()]
    assert loaded == [kept[1].question, kept[1].answer, kept[1].category]
    visitor.write("Another question?", *loaded[1:])
    visitor.apply(pair_editor.save_row(context, editor, visitor.values, None))
    assert visitor.samples()[1].question == "Another question?"
    assert read_samples(path) == kept, "an edit writes a new file"
    visitor.values[editor.row] = 0
    visitor.apply(pair_editor.drop_row(context, editor, visitor.values, None))
    assert visitor.samples()[0].question == "Another question?"
    visitor.write("New?", "I won't.")
    filled = visitor.apply(pair_editor.append_row(context, editor, visitor.values, None))
    assert visitor.samples()[-1].question == "New?"
    download = filled[editor.download]["value"]
    assert read_samples(download) == visitor.samples() and filled[editor.row] == pair_editor.NO_ROW
    assert not Path(download).is_relative_to(context.settings.home), "gradio serves copies only"
    assert set(filled) <= set(pair_editor.outputs(editor))


def test_without_a_run_or_a_file_there_is_nothing_to_edit(visitor: Visitor) -> None:
    visitor.values |= {visitor.run_id: "", visitor.editor.row: 0}
    with pytest.raises(DataError):
        pair_editor.copy_pairs(visitor.context, visitor.editor, visitor.run_id, visitor.values, None)
    visitor.write("Q?", "A.")
    with pytest.raises(DataError) as caught:
        pair_editor.save_row(visitor.context, visitor.editor, visitor.values, None)
    assert caught.value.code == "no-pairs"


def test_the_editor_shows_the_file_that_the_form_names(visitor: Visitor) -> None:
    context, editor = visitor.context, visitor.editor
    visitor.apply(pair_editor.copy_pairs(context, editor, visitor.run_id, visitor.values, None))
    assert "data-row=" in pair_editor.show_file(context, editor, visitor.values)[editor.cards]
    visitor.values[editor.dataset] = "domain"
    shown = pair_editor.show_file(context, editor, visitor.values)
    assert "sm-empty" in shown[editor.cards] and shown[editor.row] == pair_editor.NO_ROW


def test_a_table_is_previewed_before_it_is_used(visitor: Visitor, tmp_path: Path) -> None:
    context, editor = visitor.context, visitor.editor
    path = tmp_path / "theirs.csv"
    path.write_text("ask,reply\nQ?,A.\n", encoding="utf-8")
    previewed = pair_editor.preview_upload(context, editor, str(path), None)
    assert "ask, reply" in previewed[editor.preview] and "<details" in previewed[editor.preview]
    none = pair_editor.NO_COLUMN
    guesses = {name: previewed[field]["value"] for name, field in editor.columns.items()}
    assert guesses == {"question": none, "answer": "reply", "category": none}
    visitor.values |= {editor.dataset: "domain", editor.upload_path: previewed[editor.upload_path]}
    visitor.values |= {editor.columns[name]: guess for name, guess in guesses.items()}
    with pytest.raises(DataError) as caught:
        pair_editor.use_upload(context, editor, visitor.values, None)
    assert caught.value.code == "no-column"
    visitor.values[editor.columns["question"]] = "ask"
    visitor.apply(pair_editor.use_upload(context, editor, visitor.values, None))
    assert [(sample.question, sample.answer) for sample in visitor.samples("domain")] == [("Q?", "A.")]


def test_an_upload_of_200_mb_is_refused_unread(visitor: Visitor, tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(4 * MAX_UPLOAD_BYTES)
    for upload in (
        lambda: pair_editor.preview_upload(visitor.context, visitor.editor, str(path), None),
        lambda: data.safety_upload(visitor.context, visitor.page.data, str(path), None),
    ):
        with pytest.raises(DataError) as caught:
            upload()
        assert caught.value.code == "upload-too-large"


def test_a_space_opens_no_local_file(context: AppContext, tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "secret.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n', encoding="utf-8")
    space = replace(context, settings=replace(context.settings, on_space=True))
    visitor = Visitor(space)
    visitor.values |= {pair_editor.form_fields(visitor.editor, "safety")[0]: str(path), visitor.editor.page: 1}
    with pytest.raises(SafeMergeError) as caught:
        pair_editor.turn_page(space, visitor.editor, visitor.values)
    assert caught.value.code == "local-path"


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


def test_refusals_are_counted_by_model_and_category() -> None:
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


def test_pairs_on_which_guards_disagree_are_listed_with_each_answer() -> None:
    samples = [seen("self_harm", {"a": True}), disputed("Q1?"), disputed("Q2?", kept=False, answer="", reason="nobody")]
    chosen = choose_samples(samples, "all", "disputed")
    assert [number for number, _ in chosen] == [2, 1]
    html = sample_cards(chosen)
    assert html.count("sm-reasons") == 2
    assert "org/guard</span>" in html and "phrases</span>" in html
    assert 'data-decide="1" data-keep="1"' in html
    assert 'data-decide="2"' not in html, "a row without an answer cannot be kept"


def test_the_visitor_decides_about_pairs_on_which_guards_disagree(settings: Settings) -> None:
    spec = golden_spec().model_dump(mode="json")
    needless = disputed("Q3?", kept=False, reason="not needed")
    events = [RunStarted(spec=spec), disputed("Q1?"), disputed("Q2?"), needless, seen("self_harm", {})]
    write_run(settings.runs / RUN, events)
    context = make_context(settings)

    visitor = Visitor(context)
    visitor.values[visitor.editor.dataset] = "domain"

    def decide(row: int, keep: bool) -> list[Sample]:
        message, event = visitor.page.data.decided, click(row, keep=keep)
        run_id, values = visitor.run_id, visitor.values
        filled = visitor.apply(pair_editor.decide(context, visitor.editor, message, run_id, values, event, None))
        assert "sm-notice" in filled[message] and filled[visitor.editor.dataset] == "safety"
        assert set(filled) <= {message, *pair_editor.outputs(visitor.editor)}
        return visitor.samples()

    left = decide(0, True)
    assert [(sample.question, sample.guard) for sample in left[:2]] == [("Q1?", PERSON), ("Q2?", "phrases & org/guard")]
    assert [sample.disputed for sample in left] == [False, True, False]
    left = decide(1, False)
    assert [sample.question for sample in left] == ["Q1?", "Q self_harm?"]
    left = decide(2, True)
    assert (left[-1].question, left[-1].guard, left[-1].answer) == ("Q3?", PERSON, REFUSAL)
    assert "sm-badge sm-warn" not in row_cards(left, "safety")


def test_disputed_test_replies_are_listed_without_replies_that_are_not_stored() -> None:
    answers = (
        GuardAnswer(guard="phrases", refusal=False, safe=False),
        GuardAnswer(guard="org/guard", refusal=False, safe=True),
    )
    hidden = DisputedReply(
        model="evomm", prompt="<b>P</b>", category="self_harm", unsafe=True, answers=answers, response=None
    )
    measured = ModelMeasured(result=ModelResult(name="evomm", role="merged"), disputed=(hidden,))
    html = disputed_replies(fold([RunStarted(spec=golden_spec().model_dump(mode="json")), measured]))
    assert "<b>P</b>" not in html and html.index("<details") < html.index("&lt;b&gt;P")
    assert html.count("<details") == 1, "there is no reply to cover"
    assert "Safety-aware" in html and "org/guard</span>" in html
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
