"""Prompt files of every form, and what is said about wrong ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.data_spec import ColumnsSpec
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


ASKED = ["How do tides work?", "Why, then; is it salty?"]
COMMAS = 'How do tides work?,sea\n"Why, then; is it salty?",sea\n'
SEMICOLONS = 'How do tides work?;sea\n"Why, then; is it salty?";sea\n'
TABS = "How do tides work?\tsea\nWhy, then; is it salty?\tsea\n"
OBJECTS = [{"prompt": text, "category": "sea"} for text in ASKED]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("array.json", json.dumps(OBJECTS, indent=2)),
        ("one_line.json", json.dumps(OBJECTS)),
        ("array.jsonl", json.dumps(OBJECTS)),
        ("array.txt", json.dumps(OBJECTS)),
        ("nested.json", json.dumps({"version": 2, "data": OBJECTS})),
        ("columns.json", json.dumps({"prompt": ASKED, "category": ["sea", "sea"]})),
        ("lines.json", "\n".join(map(json.dumps, OBJECTS))),
        ("semicolon.csv", "\ufeffprompt;category\r\n" + SEMICOLONS.replace("\n", "\r\n")),
        ("excel.csv", "sep=;\nprompt;category\n" + SEMICOLONS),
        ("bars.csv", "prompt|category\n" + SEMICOLONS.replace('"', "").replace(";sea", "|sea")),
        ("tabs.tsv", "prompt\tcategory\n" + TABS),
        ("tabs.csv", "prompt\tcategory\n" + TABS),
        ("utf16.csv", ("prompt\tcategory\n" + TABS).encode("utf-16")),
        ("unmarked.csv", ("prompt,category\n" + COMMAS).encode("utf-16-le")),
        ("utf32.csv", ("prompt,category\n" + COMMAS).encode("utf-32")),
        ("header.txt", "prompt,category\n" + COMMAS),
        ("lines.txt", "\n".join(map(json.dumps, OBJECTS))),
        ("lines.csv", "\n".join(map(json.dumps, OBJECTS))),
        ("commas.tsv", "prompt,category\n" + COMMAS),
        ("upper.csv", "Prompt,Category\n" + COMMAS),
        ("harmbench.csv", "Behavior,SemanticCategory\n" + COMMAS),
        ("advbench.csv", "goal,category\n" + COMMAS),
        ("upper.jsonl", "\n".join(json.dumps({"Prompt": t, "Category": "sea"}) for t in ASKED)),
        ("numbered.jsonl", "\n".join(json.dumps({"prompt": t, "category": ["sea"]}) for t in ASKED)),
        (
            "messages.jsonl",
            "\n".join(
                json.dumps({"messages": [{"role": "user", "content": text}], "category": "sea"}) for text in ASKED
            ),
        ),
    ],
)
def test_files_as_people_save_them(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert read_prompts(write(tmp_path, name, content)) == [Prompt(text, "sea") for text in ASKED]


def test_an_array_of_texts_and_a_category_of_none(tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path, "a.json", json.dumps(ASKED))) == [Prompt(text) for text in ASKED]
    content = '{"prompt": "one", "category": null}\n{"prompt": "two", "category": 3}\n'
    assert read_prompts(write(tmp_path, "a.jsonl", content)) == [Prompt("one"), Prompt("two", "3")]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_one_object_is_one_row(tmp_path: Path, name: str) -> None:
    content = json.dumps({"prompt": "one", "tags": ["a", "b"], "references": [{"prompt": "two"}]})
    assert read_prompts(write(tmp_path, name, content)) == [Prompt("one")]


def test_texts_with_a_header_or_old_line_ends(tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path, "a.txt", "prompt\none\ntwo\n")) == [Prompt("one"), Prompt("two")]
    assert read_prompts(write(tmp_path, "b.txt", "one\rtwo\r")) == [Prompt("one"), Prompt("two")]
    assert read_prompts(write(tmp_path, "c.txt", "prompt")) == [Prompt("prompt")]


def test_harmbench_puts_the_context_before_the_behavior(tmp_path: Path) -> None:
    rows = "Behavior,SemanticCategory,ContextString\nSummarize it.,sea,Tides rise.\nHow do tides work?,sea,\n"
    asked = [row.prompt for row in read_prompts(write(tmp_path, "a.csv", rows))]
    assert asked == ["Tides rise.\n\n---\n\nSummarize it.", "How do tides work?"]


def test_a_parquet_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ASKED, "category": ["sea", "sea"]}), tmp_path / "a.parquet")
    assert read_prompts(tmp_path / "a.parquet") == [Prompt(text, "sea") for text in ASKED]


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "prompt,request,kind\nignored,How do tides work?,sea\n")
    columns = ColumnsSpec(question="Request", category="kind")
    assert read_prompts(path, columns=columns) == [Prompt("How do tides work?", "sea")]
    with pytest.raises(DataError) as caught:
        read_prompts(path, columns=ColumnsSpec(question="absent"))
    assert caught.value.code == "missing-column"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("empty.jsonl", "", "file-empty"),
        ("blank.txt", " \n\n", "file-empty"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "not-utf8"),
        ("cut.txt", "abc".encode("utf-16") + b"x", "not-utf8"),
        ("workbook.xlsx", b"PK\x03\x04 not text \x00", "file-binary"),
        ("renamed.csv", b"PK\x03\x04 not text \x00", "file-binary"),
        ("packed.jsonl", gzip.compress(mtime=0, data=b'{"prompt": "one"}\n'), "file-binary"),
        ("nulls.txt", "one\ntwo\0three and more words\n", "file-binary"),
        ("broken.parquet", "no parquet", "not-parquet"),
        ("list.jsonl", '{"prompt": "one"}\n["two"]\n', "not-json-object"),
        ("numbers.json", "[1, 2]", "not-json-object"),
        ("text.jsonl", "How do tides work?\n", "not-json"),
        ("key.jsonl", '{"ask": "one", "id": 3}\n', "missing-column"),
        ("number.jsonl", '{"prompt": 3}\n', "wrong-cell-type"),
        ("half.jsonl", '{"prompt": "one \\ud800"}\n', "half-character"),
        ("page.csv", "<!DOCTYPE html>\n<html><body>404</body></html>", "file-binary"),
        ("pointer.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 12\n", "file-binary"),
        ("list.yaml", "- one\n- two\n", "file-kind"),
        ("null.jsonl", '{"prompt": null}\n', "wrong-cell-type"),
        ("hollow.jsonl", '{"prompt": "  "}\n', "empty-cell"),
        ("category.jsonl", '{"prompt": "one", "category": {"a": 1}}\n', "wrong-cell-type"),
        ("columns.csv", "aim,target\none,two\n", "missing-column"),
        ("twice.csv", "prompt,category,Prompt\none,a,two\n", "table-column-twice"),
        ("header.csv", "prompt,category\n", "no-prompts"),
        ("comma.csv", "prompt\nWhy, then, is it salty?\n", "wrong-column-count"),
        ("short.csv", "id,prompt\n1,one\n2\n", "wrong-column-count"),
        ("quote.csv", 'prompt\n"never closed\n', "not-csv"),
        (
            "turns.jsonl",
            json.dumps({"messages": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]}),
            "row-turns",
        ),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, name: str, content: str | bytes, code: str) -> None:
    with pytest.raises(DataError) as caught:
        read_prompts(write(tmp_path, name, content))
    assert caught.value.code == code
    assert caught.value.hint
    assert name in caught.value.message


def test_a_wrong_row_is_named_by_its_number(tmp_path: Path) -> None:
    for name, content, number in (
        ("list.jsonl", '{"prompt": "one"}\n\n["two"]\n', 3),
        ("short.csv", "id,prompt\n1,one\n2\n", 3),
        ("sep.csv", "sep=,\nid,prompt\n1,one\n2\n", 4),
    ):
        with pytest.raises(DataError) as caught:
            read_prompts(write(tmp_path, name, content))
        assert f"Row {number} of" in caught.value.message


def test_another_encoding_is_shown_as_it_would_read(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_prompts(write(tmp_path, "a.csv", "prompt\nWhat is a café?\n".encode("cp1252")))
    assert "café" in caught.value.message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_prompts(tmp_path / "absent.jsonl")
    assert caught.value.code == "file-not-found"
    with pytest.raises(DataError) as caught:
        read_prompts(tmp_path)
    assert caught.value.code == "file-unreadable"


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
    assert caught.value.code in ("prompt-too-long", "not-csv")


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
