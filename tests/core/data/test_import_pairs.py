"""Training pairs from files: the same checks as for generated ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from core.data.columns import MappedRow
from core.data.import_pairs import read_pairs
from core.data.opened_source import OpenedSource, open_file
from core.data.training_pairs import DropReason, Sample
from core.errors import DataError
from core.guards.phrases import PhrasesGuard
from tests.core.data.fake_models import REFUSAL

QUESTIONS = (
    "Where do lost umbrellas go at night?",
    "Can a teapot be taught to sing?",
    "Who paints the zebra crossing?",
)


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_safety_rows_keep_their_answers_and_get_category_slugs(tmp_path: Path) -> None:
    path = write(
        tmp_path / "safety.jsonl",
        [
            {"prompt": QUESTIONS[0], "response": REFUSAL, "category": "drug_abuse,weapons,banned_substance"},
            {"question": QUESTIONS[1], "answer": REFUSAL, "category": "house rules"},
        ],
    )
    events = list(read_pairs(open_file(path, "safety"), "safety", k=64, held_out=(), guard=PhrasesGuard()))
    assert [(e.question, e.answer, e.category, e.kept) for e in events] == [
        (QUESTIONS[0], REFUSAL, "drug_abuse_weapons_banned_substance", True),
        (QUESTIONS[1], REFUSAL, "house rules", True),
    ]


def test_leaks_repetitions_and_compliant_answers_are_dropped(tmp_path: Path) -> None:
    path = write(
        tmp_path / "safety.jsonl",
        [
            {"question": QUESTIONS[0], "answer": "Sure, they go to the sea."},
            {"question": QUESTIONS[0], "answer": REFUSAL},
            {"question": f"Please: {QUESTIONS[0]}", "answer": REFUSAL},
            {"question": QUESTIONS[1], "answer": REFUSAL},
        ],
    )
    events = list(
        read_pairs(open_file(path, "safety"), "safety", k=64, held_out=[QUESTIONS[1].upper()], guard=PhrasesGuard())
    )
    assert [event.reason for event in events] == [
        DropReason.NOT_A_REFUSAL,
        "",
        DropReason.NEAR_DUPLICATE,
        DropReason.HELD_OUT,
    ]
    assert events[0].answer == ""


def test_a_compliant_answer_is_not_shown_whatever_else_is_wrong_with_its_row() -> None:
    leaked = MappedRow(Sample(QUESTIONS[0], "Sure, they go to the sea."), stem=QUESTIONS[2])
    source = OpenedSource("rows", True, iter([leaked, MappedRow(Sample(QUESTIONS[1], REFUSAL), stem=QUESTIONS[1])]))
    events = list(read_pairs(source, "safety", k=64, held_out=[QUESTIONS[2]], guard=PhrasesGuard()))
    assert [(event.answer, event.kept) for event in events] == [("", False), (REFUSAL, True)]


def test_k_rows_are_taken_evenly_over_the_categories(tmp_path: Path) -> None:
    rows = [
        {"question": f"What is {number} of {category}?", "answer": str(number), "category": category}
        for category in ("a", "b")
        for number in range(400)
    ]
    events = list(read_pairs(open_file(write(tmp_path / "domain.jsonl", rows), "domain"), "domain", k=300, held_out=()))
    assert Counter(event.category for event in events) == {"a": 150, "b": 150}
    assert all(event.kept for event in events)


def test_domain_questions_are_compared_for_equality_only(tmp_path: Path) -> None:
    rows = [{"question": f"What is the symbol of {name}?", "answer": "?1"} for name in ("iron", "gold", "zinc")]
    events = read_pairs(
        open_file(write(tmp_path / "d.jsonl", rows), "domain"), "domain", k=9, held_out=["what is the symbol of gold"]
    )
    assert [event.reason for event in events] == ["", DropReason.HELD_OUT, ""]


@pytest.mark.parametrize(
    ("answer", "held_out", "reason"),
    [("Of course!", [], DropReason.NOT_A_REFUSAL), (REFUSAL, QUESTIONS, DropReason.HELD_OUT)],
)
def test_a_file_without_usable_pairs_is_refused(
    tmp_path: Path, answer: str, held_out: tuple[str, ...], reason: DropReason
) -> None:
    path = write(tmp_path / "s.jsonl", [{"question": question, "answer": answer} for question in QUESTIONS])
    with pytest.raises(DataError) as caught:
        list(read_pairs(open_file(path, "safety"), "safety", k=4, held_out=held_out, guard=PhrasesGuard()))
    assert caught.value.code == "no-usable-pairs" and f"{reason}: 3" in caught.value.message
    assert caught.value.hint
