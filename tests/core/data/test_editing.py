"""Rows edited by hand: each edit writes a new file and marks the row; unusable input is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.editing import (
    add_row,
    convert_table,
    edit_row,
    exclude_row,
    keep_rows,
    preview_table,
    read_editable,
)
from core.data.training_pairs import Sample
from core.errors import DataError

ROWS = [
    Sample("Q1?", "No.", "privacy_violation", "demo/aligned", source="demo/question-writer", seed=7),
    Sample("Q2?", "Never.", "self_harm", "demo/aligned"),
]


def test_edits_are_written_to_new_files_and_marked(tmp_path: Path) -> None:
    first = keep_rows(ROWS, tmp_path)
    edited = edit_row(ROWS, 0, " Q1 again? ", "No.", "self_harm")
    second = keep_rows(add_row(exclude_row(edited, 1), "Q3?", "I won't.", ""), tmp_path)
    assert read_editable(first, "safety") == ROWS, "a file that a run may use is never changed"
    one, three = read_editable(second, "safety")
    assert (one.question, one.provenance, one.answered_by, one.source, one.seed) == (
        "Q1 again?",
        "edited",
        "demo/aligned",
        "demo/question-writer",
        7,
    )
    assert (three.question, three.source) == ("Q3?", "by hand")
    assert edit_row(ROWS, 0, "Q1?", "Not any more.", "")[0].answered_by == ""
    assert keep_rows(ROWS, tmp_path) == first and len(list(tmp_path.iterdir())) == 2


def test_questions_alone_stay_questions_for_the_pool(tmp_path: Path) -> None:
    path = keep_rows([Sample("Q1?", ""), Sample("Q2?", "")], tmp_path)
    assert [sample.answer for sample in read_editable(path, "safety")] == ["", ""]
    with pytest.raises(DataError) as caught:
        keep_rows([Sample("Q1?", ""), Sample("Q2?", "No.")], tmp_path)
    assert caught.value.code == "some-answers-missing"


@pytest.mark.parametrize("index", [-1, 2])
def test_a_row_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(DataError) as caught:
        edit_row(ROWS, index, "Q?", "A.", "")
    assert caught.value.code == "no-such-row"
    with pytest.raises(DataError) as caught:
        exclude_row(ROWS, index)
    assert caught.value.code == "no-such-row"


def test_nothing_empty_is_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        edit_row(ROWS, 0, "  ", "A.", "")
    assert caught.value.code == "empty-cell"
    with pytest.raises(DataError) as caught:
        add_row(ROWS, "", "A.", "")
    assert caught.value.code == "empty-cell"
    with pytest.raises(DataError) as caught:
        exclude_row(ROWS[:1], 0)
    assert caught.value.code == "only-row"
    with pytest.raises(DataError) as caught:
        keep_rows([], tmp_path)
    assert caught.value.code == "no-rows"


def test_a_foreign_table_is_previewed_with_a_guess_and_converted(tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("ID,Prompt,Refusal,Topic\n1,Q?,No.,privacy\n", encoding="utf-8")
    table = preview_table(path)
    assert table.names == ("ID", "Prompt", "Refusal", "Topic")
    assert table.guess == {"question": "Prompt", "answer": "Refusal", "category": "Topic"}
    [sample] = convert_table(path, "safety", question="Prompt", answer="Refusal", category="Topic")
    assert (sample.question, sample.answer, sample.category, sample.source) == ("Q?", "No.", "privacy", "theirs.csv#2")
    with pytest.raises(DataError) as caught:
        convert_table(path, "safety", question="Question", answer="Refusal", category="")
    assert caught.value.code == "missing-column"
    with pytest.raises(DataError) as caught:
        convert_table(path, "domain", question="Prompt", answer="", category="")
    assert caught.value.code == "no-answers"


def test_a_row_of_50_000_characters_is_dropped_and_the_others_kept(tmp_path: Path) -> None:
    from core.data.import_pairs import read_pairs
    from core.data.opened_source import open_file
    from core.data.training_pairs import DropReason

    rows = [{"question": "x" * 50_000, "answer": "No."}, {"question": "Q?", "answer": "A."}]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    long, other = read_pairs(open_file(path, "domain"), "domain", k=2, held_out=())
    assert (long.kept, long.reason, other.kept) == (False, DropReason.TOO_LONG, True)
    assert len(long.question) < 1000, "the log does not carry it"
