"""The demo's facts: right answers among distinct choices, held-out wordings, and task files that are up to date."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from core.demo.corpus import DATA
from core.demo.facts import TEST_QUESTIONS, facts, multiple_choice, training_questions
from core.demo.tasks import load_questions, task_files, write_task_files
from core.settings import ASSETS

FIELDS: tuple[Any, ...] = ("chemistry", "geography")
SPLITS: tuple[Any, ...] = ("probe", "test")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("split", SPLITS)
def test_each_question_has_four_distinct_choices_and_one_of_them_is_the_fact(field: Any, split: Any) -> None:
    right = {fact.sentence() for fact in facts(field)}
    questions = multiple_choice(field, split)
    assert {question.choices[question.answer] for question in questions} == right
    for question in questions:
        assert len(set(question.choices)) == 4
        assert question.choices[question.answer] in right
        wrong = [choice for index, choice in enumerate(question.choices) if index != question.answer]
        assert not set(wrong) & right


@pytest.mark.parametrize("field", FIELDS)
def test_the_probe_asks_each_fact_once_and_the_test_at_most_twice(field: Any) -> None:
    known = len(facts(field))
    probe, test = multiple_choice(field, "probe"), multiple_choice(field, "test")
    assert len(probe) == known
    assert len(test) == len({question.question for question in test}) == TEST_QUESTIONS > known
    first = Counter(question.choices[question.answer] for question in test[:known])
    assert set(first.values()) == {1}
    assert max(Counter(question.choices[question.answer] for question in test).values()) == 2


@pytest.mark.parametrize("field", FIELDS)
def test_a_larger_test_keeps_its_first_questions(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    larger = multiple_choice(field, "test")
    monkeypatch.setattr("core.demo.facts.TEST_QUESTIONS", 150)
    assert multiple_choice(field, "test") == larger[:150]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("split", SPLITS)
def test_the_position_of_the_right_choice_is_no_clue(field: Any, split: Any) -> None:
    positions = Counter(question.answer for question in multiple_choice(field, split))
    assert set(positions) == {0, 1, 2, 3}
    assert max(positions.values()) < 0.4 * positions.total()


@pytest.mark.parametrize("field", FIELDS)
def test_held_out_wordings_are_never_trained_on_and_never_shared(field: Any) -> None:
    trained = {question for question, _ in training_questions(field)}
    probe = {question.question for question in multiple_choice(field, "probe")}
    test = {question.question for question in multiple_choice(field, "test")}
    assert not trained & probe
    assert not trained & test
    assert not probe & test
    assert {answer for _, answer in training_questions(field)} == {fact.sentence() for fact in facts(field)}


def test_answers_are_those_of_the_tables() -> None:
    chemistry = {question.choices[question.answer] for question in multiple_choice("chemistry", "test")}
    assert {"The chemical symbol of indium is In.", "The atomic number of iron is 26."} <= chemistry
    with (DATA / "countries.csv").open(encoding="utf-8", newline="") as file:
        capitals = {row["country"]: row["capital"] for row in csv.DictReader(file)}
    geography = {question.choices[question.answer] for question in multiple_choice("geography", "test")}
    capital_sentences = [sentence for sentence in geography if sentence.startswith("The capital of ")]
    assert len(capital_sentences) >= 20
    for sentence in capital_sentences:
        country, capital = sentence.removeprefix("The capital of ").removesuffix(".").split(" is ")
        assert capitals[country] == capital


def test_the_same_questions_are_drawn_every_time() -> None:
    assert multiple_choice("chemistry", "test") == multiple_choice("chemistry", "test")
    assert multiple_choice("chemistry", "test") != multiple_choice("chemistry", "probe")


def test_the_committed_task_files_are_what_the_command_writes(tmp_path: Path) -> None:
    write_task_files(tmp_path)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(task_files())
    for name in written:
        assert (ASSETS / name).read_bytes() == (tmp_path / name).read_bytes(), name


@pytest.mark.parametrize("field", FIELDS)
def test_task_data_is_found_from_any_folder(field: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = load_questions(questions=f"demo_{field}.jsonl", version=1.0)["test"]
    assert [(row["question"], tuple(row["choices"]), row["answer"]) for row in rows] == multiple_choice(field, "test")
