"""Prompt files of every format, and the errors of wrong files."""

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


CSV_FIELD_LIMIT = 131_072
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
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    assert caught.value.code == "not-json" and "Row 3 " in caught.value.message
    with pytest.raises(DataError) as caught:
        read_prompts(path, limit=0)
    assert caught.value.code == "limit-too-small"


@pytest.mark.parametrize(
    ("name", "content", "code", "named"),
    [
        ("empty.jsonl", "", "file-empty", ""),
        ("blank.txt", " \n\n", "file-empty", ""),
        ("latin.txt", "caf\xe9".encode("latin-1"), "not-utf8", "byte 3"),
        ("utf16.csv", "prompt\nhello".encode("utf-16"), "not-utf8", "byte 0"),
        ("list.jsonl", '{"prompt": "one"}\n["two"]\n', "not-json-object", "Row 2 "),
        ("text.jsonl", "How do tides work?\n", "not-json", "Row 1 "),
        ("key.jsonl", '{"question": "one", "id": 3}\n', "missing-column", "question, id"),
        ("number.jsonl", '{"prompt": 3}\n', "wrong-cell-type", "Row 1 "),
        ("null.jsonl", '{"prompt": null}\n', "wrong-cell-type", "Row 1 "),
        ("hollow.jsonl", '{"prompt": "  "}\n', "empty-cell", "Row 1 "),
        ("category.jsonl", '{"prompt": "one", "category": ["a"]}\n', "wrong-cell-type", "'category'"),
        ("columns.csv", "goal,target\none,two\n", "missing-column", "goal, target"),
        ("header.csv", "prompt,category\n", "no-prompts", ""),
        ("comma.csv", "prompt\nWhy, then, is it salty?\n", "wrong-column-count", "Row 2 "),
        ("short.csv", "id,prompt\n1,one\n2\n", "wrong-column-count", "Row 3 "),
        ("quote.csv", 'prompt\n"never closed\n', "not-csv", "Row 2 "),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, name: str, content: str | bytes, code: str, named: str) -> None:
    with pytest.raises(DataError) as caught:
        read_prompts(write(tmp_path, name, content))
    assert caught.value.code == code and caught.value.hint
    assert name in caught.value.message and named in caught.value.message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "absent.jsonl", "file-not-found"), (tmp_path, "file-unreadable")):
        with pytest.raises(DataError) as caught:
            read_prompts(path)
        assert caught.value.code == code


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
@pytest.mark.parametrize("length", [MAX_PROMPT_CHARACTERS + 1, 200_000])
def test_too_long_rows_are_refused_by_number(tmp_path: Path, name: str, length: int) -> None:
    rows = ["short", "x" * length]
    content = {
        "a.jsonl": "\n".join(json.dumps({"prompt": row}) for row in rows),
        "a.csv": "\n".join(["prompt", *rows]),
        "a.txt": "\n".join(rows),
    }[name]
    with pytest.raises(DataError) as caught:
        read_prompts(write(tmp_path, name, content))
    assert caught.value.code == ("not-csv" if name == "a.csv" and length > CSV_FIELD_LIMIT else "prompt-too-long")
    assert f"Row {3 if name == 'a.csv' else 2} " in caught.value.message and "50,000" in str(caught.value)


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
