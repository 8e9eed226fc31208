"""The demo's texts: no prompt or question is in two splits, and the committed prompt files match the corpus."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from core.data.overlap import find_leaks
from core.demo import corpus
from core.demo.corpus import Split
from core.demo.facts import multiple_choice, training_questions
from core.demo.prompts import FOLDER, write_prompts
from core.evaluation.suites import DEMO_TASKS

SPLITS: tuple[Split, ...] = ("train", "validation", "probe", "test")
MEASURED = ("test_harmful.jsonl", "test_benign.jsonl", "test_ordinary.jsonl")
FIELDS: tuple[Any, ...] = ("chemistry", "geography")


@cache
def prompts(split: Split) -> tuple[str, ...]:
    """Every prompt of a split, harmful or harmless."""
    found = [*corpus.harmful(split), *corpus.benign(split), *corpus.ordinary(split)]
    return tuple(item.prompt for item in found)


def texts(path: Path) -> list[str]:
    """The prompts or questions of a JSONL file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row.get("prompt") or row["question"] for row in rows]


def repeated(ours: tuple[str, ...], theirs: tuple[str, ...], *, near: bool) -> list[tuple[str, str]]:
    """Pairs of equal (or, with `near`, nearly equal) texts of two lists."""
    return [(ours[leak.train], theirs[leak.held_out]) for leak in find_leaks(ours, theirs, near=near)]


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_no_demo_prompt_is_in_two_splits(one: Split, other: Split) -> None:
    assert len(prompts(one)) > 200
    assert repeated(prompts(one), prompts(other), near=False) == []


@pytest.mark.parametrize(
    ("used", "measured"),
    [("train", "probe"), ("validation", "probe"), ("train", "test"), ("validation", "test"), ("probe", "test")],
)
def test_no_demo_prompt_nearly_repeats_a_measured_one(used: Split, measured: Split) -> None:
    assert repeated(prompts(used), prompts(measured), near=True) == []


def test_no_other_prompt_file_nearly_repeats_a_test_prompt() -> None:
    measured = tuple(text for name in MEASURED for text in texts(FOLDER / name))
    others = [path for path in sorted(FOLDER.glob("*.jsonl")) if path.name not in MEASURED]
    assert len(others) >= 8
    for path in others:
        assert repeated(tuple(texts(path)), measured, near=True) == [], path.name


def test_test_prompts_are_all_different() -> None:
    for name in MEASURED:
        found = tuple(texts(FOLDER / name))
        assert [repeated(found[:index], (text,), near=True) for index, text in enumerate(found)] == [[]] * len(found)


@pytest.mark.parametrize("field", FIELDS)
def test_no_training_probe_or_example_question_is_in_the_test(field: Any) -> None:
    measured = tuple(texts(DEMO_TASKS / f"demo_{field}.jsonl"))
    files = [FOLDER / f"{field}_{name}.jsonl" for name in ("examples", "probe")]
    trained = tuple(question for question, _ in training_questions(field))
    probed = tuple(question.question for question in multiple_choice(field, "probe"))
    for used in (trained, probed, *(tuple(texts(path)) for path in files)):
        assert used
        assert repeated(used, measured, near=False) == []


def test_test_sets_are_large_and_cover_every_category_evenly() -> None:
    harmful = Counter(json.loads(line)["category"] for line in (FOLDER / MEASURED[0]).read_text().splitlines())
    assert len(harmful) == 14
    assert len(set(harmful.values())) == 1
    assert harmful.total() >= 300
    assert len(texts(FOLDER / "test_benign.jsonl")) >= 300
    assert {len(texts(DEMO_TASKS / f"demo_{field}.jsonl")) for field in FIELDS} == {200}


def test_the_prompt_files_match_the_corpus(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    written = sorted(tmp_path.iterdir())
    assert len(written) >= 6
    for path in written:
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name
