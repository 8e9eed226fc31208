"""Prompt files of every form, and what is said about wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.prompts import MAX_PROMPT_CHARACTERS, Prompt, read_prompts
from core.errors import DataError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


EXPECTED = [Prompt("How do tides work?", "sea"), Prompt("Why, then, is it salty?", "")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"prompt": "How do tides work?", "category": "sea"}\n\n{"prompt": "Why, then, is it salty?"}\n'),
        (
            "bom.jsonl",
            '\ufeff{"prompt":" How do tides work? ","category":"sea"}\r\n{"prompt":"Why, then, is it salty?"}',
        ),
        ("a.csv", 'id,Category,Prompt\n1,sea,How do tides work?\n\n2,,"Why, then, is it salty?"\n'),
    ],
)
def test_forms_with_categories(tmp_path: Path, name: str, content: str) -> None:
    assert read_prompts(write(tmp_path, name, content)) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "How do tides work?\n\nWhy, then, is it salty?\n"),
        ("headed.csv", 'prompt\nHow do tides work?\n"Why, then, is it salty?"\n'),
        ("question.csv", 'question\nHow do tides work?\n"Why, then, is it salty?"\n'),
        ("bare.csv", 'How do tides work?\n"Why, then, is it salty?"\n'),
    ],
)
def test_forms_without_categories(tmp_path: Path, name: str, content: str) -> None:
    assert [row.prompt for row in read_prompts(write(tmp_path, name, content))] == [row.prompt for row in EXPECTED]


def test_limit_takes_from_the_top_and_reads_no_further(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"prompt": "one"}\n{"prompt": "two"}\nnot json\n')
    assert [row.prompt for row in read_prompts(path, limit=2)] == ["one", "two"]
    with pytest.raises(DataError, match="Row 3"):
        read_prompts(path)
    with pytest.raises(DataError, match="limit of 0"):
        read_prompts(path, limit=0)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jsonl", "", "is empty"),
        ("blank.txt", " \n\n", "is empty"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "not UTF-8"),
        ("utf16.csv", "prompt\nhello".encode("utf-16"), "not UTF-8"),
        ("list.jsonl", '{"prompt": "one"}\n["two"]\n', "Row 2 .* is a list, not a JSON object"),
        ("text.jsonl", "How do tides work?\n", "Row 1 .* is not JSON"),
        ("key.jsonl", '{"question": "one", "id": 3}\n', "Row 1 .* no 'prompt'; its keys: question, id"),
        ("number.jsonl", '{"prompt": 3}\n', "Row 1 .* 'prompt' is a int"),
        ("null.jsonl", '{"prompt": null}\n', "Row 1 .* 'prompt' is a NoneType"),
        ("hollow.jsonl", '{"prompt": "  "}\n', "Row 1 .* empty prompt"),
        ("category.jsonl", '{"prompt": "one", "category": ["a"]}\n', "Row 1 .* 'category' is a list"),
        ("columns.csv", "goal,target\none,two\n", "no 'prompt' column; found: goal, target"),
        ("header.csv", "prompt,category\n", "has no prompts"),
        ("comma.csv", "prompt\nWhy, then, is it salty?\n", "Row 2 .* 3 columns where the header has 1"),
        ("short.csv", "id,prompt\n1,one\n2\n", "Row 3 .* 1 columns where the header has 2"),
        ("quote.csv", 'prompt\n"never closed\n', "Row 2 .* is not CSV"),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_prompts(write(tmp_path, name, content))
    assert caught.value.hint
    assert name in caught.value.message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prompt file"):
        read_prompts(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
@pytest.mark.parametrize("length", [MAX_PROMPT_CHARACTERS + 1, 200_000])
def test_too_long_rows_are_refused_by_number(tmp_path: Path, name: str, length: int) -> None:
    rows = ["short", "x" * length]
    content = {
        "a.jsonl": "\n".join(json.dumps({"prompt": row}) for row in rows),
        "a.csv": "\n".join(["prompt", *rows]),
        "a.txt": "\n".join(rows),
    }[name]
    with pytest.raises(DataError, match=f"Row {3 if name == 'a.csv' else 2} ") as caught:
        read_prompts(write(tmp_path, name, content))
    assert "50,000" in str(caught.value)


def test_longest_allowed_prompt_is_read(tmp_path: Path) -> None:
    assert len(read_prompts(write(tmp_path, "a.txt", "x" * MAX_PROMPT_CHARACTERS))[0].prompt) == MAX_PROMPT_CHARACTERS


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(_TEXT, min_size=1, unique_by=str.strip))
def test_what_is_written_as_jsonl_is_read_back(tmp_path_factory: pytest.TempPathFactory, prompts: list[str]) -> None:
    content = "\n".join(json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts)
    path = write(tmp_path_factory.mktemp("prompts"), "a.jsonl", content)
    assert [row.prompt for row in read_prompts(path)] == [prompt.strip() for prompt in prompts]


def test_a_prompt_that_is_there_twice_is_one_trial(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "one\ntwo\none\nthree\n")
    assert [row.prompt for row in read_prompts(path)] == ["one", "two", "three"]
    assert [row.prompt for row in read_prompts(path, limit=3)] == ["one", "two", "three"]
