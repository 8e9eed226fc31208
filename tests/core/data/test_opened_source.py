"""Files and Hub datasets as sources of pairs: the rows that are read, and the errors of unusable sources."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from core.contracts.data_spec import SourceSpec
from core.data.columns import MappedRow
from core.data.opened_source import check_source, open_file, open_source
from core.data.presets import PRESETS, choose_dataset
from core.data.training_pairs import Dataset
from core.errors import DataError, SafeMergeError, SpecError
from core.settings import Settings
from tests.hub_server import HubServer

BEAVERTAILS = (
    {"prompt": "Unsafe one?", "response": "HARM", "is_safe": False, "category": {"self_harm": False, "x": True}},
    {"prompt": "Harmless?", "response": "fine", "is_safe": True, "category": {"self_harm": False, "x": False}},
    {"prompt": "Unsafe two?", "response": "HARM", "is_safe": False, "category": {"self_harm": True, "x": True}},
)
CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"


def publish(hub: HubServer, folder: Path, repo_id: str, splits: Mapping[str, Sequence[Any]], **facts: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    files = ""
    for split, rows in splits.items():
        with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        files += f"  - split: {split}\n    path: {split}.jsonl.gz\n"
    (folder / "README.md").write_text(CARD.format(files=files), encoding="utf-8")
    return hub.publish(f"datasets/{repo_id}", folder, **facts)


def source(path: str, **keys: Any) -> SourceSpec:
    return SourceSpec(source="dataset", path=path, **keys)


def read(spec: SourceSpec, dataset: Dataset, settings: Settings) -> list[MappedRow]:
    return list(open_source(spec, dataset, settings).rows)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def test_only_unsafe_questions_of_beavertails_are_read(
    dataset_hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    sha = publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_train": BEAVERTAILS, "30k_test": []})
    opened = open_source(source("beavertails"), "safety", settings)
    rows = list(opened.rows)
    assert not opened.answered
    assert [(row.sample.question, row.sample.category) for row in rows] == [
        ("Unsafe one?", "x"),
        ("Unsafe two?", "self_harm"),
    ]
    assert rows[1].sample.source == f"PKU-Alignment/BeaverTails@{sha}/30k_train#3"
    assert rows[1].sample.provenance == "dataset"
    assert "HARM" not in repr(rows)


def test_a_revision_and_custom_columns_are_read(dataset_hub: HubServer, tmp_path: Path, settings: Settings) -> None:
    rows = [{"ask": f"Question {n}?", "meta": {"reply": f"Answer {n}."}, "kind": "k"} for n in range(3)]
    sha = publish(dataset_hub, tmp_path / "d", "o/own", {"train": rows})
    columns = {"question": "ask", "answer": "meta.reply", "category": "kind"}
    found = read(source(f"o/own@{sha}", split="train", columns=columns), "domain", settings)
    assert [(row.sample.question, row.sample.answer, row.sample.category) for row in found] == [
        (f"Question {n}?", f"Answer {n}.", "k") for n in range(3)
    ]


def test_rows_without_a_question_are_skipped_unless_all_are(
    dataset_hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    publish(dataset_hub, tmp_path / "d", "o/holes", {"train": [{"question": ""}, {"question": "Q?"}]})
    rows = read(source("o/holes", split="train"), "safety", settings)
    assert [row.sample.question for row in rows] == ["Q?"]
    with pytest.raises(DataError) as caught:
        read(source("o/holes", split="train", columns={"question": "text"}), "safety", settings)
    assert caught.value.code == "missing-column"
    assert "Row 1 of o/holes" in caught.value.message and "'text'" in caught.value.message


MULTIPLE_CHOICE = {
    "mmlu": {"question": "Q?", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "anatomy"},
    "medmcqa": {"question": "Q?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 2, "subject_name": "x"},
    "medqa": {"sent1": "Q?", "ending0": "a", "ending1": "b", "ending2": "c", "ending3": "d", "label": 2},
    "arc_easy": {"question": "Q?", "choices": {"text": ["a", "b", "c", "d"], "label": list("1234")}, "answerKey": "3"},
    "arc_challenge": {"question": "Q?", "choices": {"text": list("abcd"), "label": list("ABCD")}, "answerKey": "C"},
    "winogrande": {"sentence": "Q?", "option1": "a", "option2": "b", "answer": "2"},
}


@pytest.mark.parametrize("name", MULTIPLE_CHOICE)
def test_a_multiple_choice_question_is_asked_with_its_choices(
    name: str, dataset_hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    preset = PRESETS[name]
    publish(dataset_hub, tmp_path / name, preset.repo_id, {preset.split: [MULTIPLE_CHOICE[name]]})
    [row] = read(source(name, config="default"), "domain", settings)
    assert row.stem == "Q?"
    letters = "AB" if name == "winogrande" else "ABCD"
    assert row.sample.question == "\n".join(["Q?", *(f"{letter}. {letter.lower()}" for letter in letters)])
    assert row.sample.answer == ("B. b" if name == "winogrande" else "C. c")


@pytest.mark.parametrize("split", ["test", "30k_test", "test_1", "TEST"])
def test_a_test_split_is_refused_by_name(split: str) -> None:
    with pytest.raises(ValidationError) as caught:
        source("o/d", split=split)
    assert [error["loc"] for error in caught.value.errors()] == [("split",)]
    assert source("o/d", split="latest").split == "latest"


def test_no_preset_trains_on_what_lm_eval_measures() -> None:
    """Read from lm-eval's own task files: a task's test split, or its validation split when it has none."""
    found = find_spec("lm_eval")
    assert found and found.origin
    tasks = Path(found.origin).parent / "tasks"
    files = {"medmcqa": "medmcqa/medmcqa", "medqa": "medqa/medqa", "pubmedqa": "pubmedqa/pubmedqa"}
    files |= {"winogrande": "winogrande/default", "arc_easy": "arc/arc_easy", "mmlu": "mmlu/default/_default_template"}
    for name, file in files.items():
        path = next(tasks.glob(f"{file}*yaml"))
        facts = dict(re.findall(r"^(\w+): *(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
        preset, measured = PRESETS[name], facts.get("test_split", facts.get("validation_split"))
        assert facts["dataset_path"] == preset.repo_id
        assert facts.get("dataset_name") in (None, preset.config)
        assert measured in preset.measured and preset.split not in preset.measured
        with pytest.raises(SpecError) as caught:
            choose_dataset(SourceSpec.model_construct(source="dataset", path=name, split=measured))
        assert caught.value.code == "measured-split"


def test_beavertails_harmful_responses_are_refused_by_name() -> None:
    with pytest.raises(SpecError) as caught:
        choose_dataset(source("PKU-Alignment/BeaverTails", columns={"answer": "response"}))
    assert caught.value.code == "harmful-responses"


def test_a_typo_is_answered_with_close_ids(dataset_hub: HubServer, tmp_path: Path, settings: Settings) -> None:
    publish(dataset_hub, tmp_path / "d", "PKU-Alignment/BeaverTails", {"30k_train": BEAVERTAILS})
    with pytest.raises(DataError) as caught:
        read(source("PKU-Alignment/BeverTails", split="30k_train"), "safety", settings)
    assert caught.value.code == "repository-not-found"
    assert "PKU-Alignment/BeaverTails" in caught.value.hint
    with pytest.raises(DataError) as caught:
        read(source("beavertail", split="30k_train"), "safety", settings)
    assert all(name in caught.value.hint for name in PRESETS)


def test_a_gated_dataset_needs_a_token(dataset_hub: HubServer, tmp_path: Path, settings: Settings) -> None:
    from dataclasses import replace

    publish(dataset_hub, tmp_path / "d", "o/gated", {"train": [{"question": "Q?"}]}, gated=True)
    with pytest.raises(DataError) as caught:
        check_source(source("o/gated", split="train"), "safety", settings)
    assert caught.value.code == "gated" and "HF_TOKEN" in caught.value.hint
    allowed = replace(settings, token=dataset_hub.token)
    assert "o/gated@" in check_source(source("o/gated", split="train"), "safety", allowed)


def test_a_wrong_split_names_the_splits_to_train_on(dataset_hub: HubServer, tmp_path: Path, settings: Settings) -> None:
    publish(dataset_hub, tmp_path / "d", "o/d", {"train": [{"question": "Q?"}], "test": [{"question": "T?"}]})
    with pytest.raises(DataError) as caught:
        open_source(source("o/d", split="trian"), "safety", settings)
    assert caught.value.code == "split-not-found"
    assert "train" in caught.value.hint and "test" not in caught.value.hint
    with pytest.raises(SpecError) as missing:
        open_source(source("o/d"), "safety", settings)
    assert missing.value.code == "split-missing"
    with pytest.raises(DataError) as caught:
        open_source(source("o/d", split="train", config="nope"), "safety", settings)
    assert caught.value.code == "dataset-unreadable"


def test_an_unreachable_hub_is_an_error(settings: Settings) -> None:
    with pytest.raises(DataError) as caught:
        open_source(source("o/d", split="train"), "safety", settings)
    assert caught.value.code == "hub-unreachable"


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_files_of_every_kind_give_the_same_rows(suffix: str, tmp_path: Path, settings: Settings) -> None:
    rows = [
        {"text": "Wie, „so“?", "reply": "So.\nUnd so.", "safe": "false"},
        {"text": "x?", "reply": "y", "safe": "true"},
    ]
    path = write_table(tmp_path / f"rows{suffix}", rows)
    columns = {"question": "text", "answer": "reply", "where": {"safe": False}}
    spec = SourceSpec(source="file", path=str(path), columns=columns)  # type: ignore[arg-type]
    [row] = read(spec, "domain", settings)
    assert (row.sample.question, row.sample.answer) == ("Wie, „so“?", "So.\nUnd so.")
    assert row.sample.source.startswith(f"rows{suffix}#")


def test_the_pool_answers_a_safety_file_without_answers(tmp_path: Path, settings: Settings) -> None:
    path = write_table(tmp_path / "q.csv", [{"prompt": "Q?", "category": "privacy"}])
    spec = SourceSpec(source="file", path=str(path))
    assert not open_source(spec, "safety", settings).answered
    found = check_source(spec, "safety", settings)
    assert found.startswith("1 ") and found.endswith(str(path))


@pytest.mark.parametrize(
    ("name", "content", "code", "named"),
    [
        ("a.csv", b"foo,bar\n1,2\n", "missing-column", "foo, bar"),
        ("a.csv", b"question,answer\nQ?,A.,more\n", "wrong-column-count", "Row 2 "),
        ("a.csv", b'question,answer\n"Q?,A.\n', "not-csv", "Row 2 "),
        ("a.csv", b"question,answer\n", "no-rows", ""),
        ("a.csv", "question,answer\nQü?,A.\n".encode("latin-1"), "not-utf8", "byte 17"),
        ("a.jsonl", b"[]\n", "no-rows", ""),
        ("a.jsonl", '{"question": "ü"}\n'.encode("latin-1"), "not-utf8", "byte 14"),
        ("a.parquet", b"PAR1 not really", "not-parquet", ""),
    ],
)
def test_a_wrong_file_is_refused(
    name: str, content: bytes, code: str, named: str, tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SafeMergeError) as caught:
        read(SourceSpec(source="file", path=str(tmp_path / name)), "domain", settings)
    assert caught.value.code == code
    assert str(tmp_path / name) in caught.value.message and named in caught.value.message


ALPACA = [
    {"instruction": "Name two planets.", "input": "", "output": "Mars and Venus."},
    {"instruction": "Add the numbers.", "input": "1 and 2", "output": "3"},
]
SHAREGPT = [{"conversations": [{"from": "human", "value": "Is water wet?"}, {"from": "gpt", "value": "Yes."}]}]
MESSAGES = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Is water wet?"},
            {"role": "assistant", "content": "Yes."},
        ]
    }
]


@pytest.mark.parametrize(
    ("name", "content", "pairs"),
    [
        (
            "alpaca.json",
            json.dumps(ALPACA),
            [("Name two planets.", "Mars and Venus."), ("Add the numbers.\n1 and 2", "3")],
        ),
        ("sharegpt.jsonl", json.dumps(SHAREGPT[0]), [("Is water wet?", "Yes.")]),
        ("messages.jsonl", json.dumps(MESSAGES[0]), [("Is water wet?", "Yes.")]),
        ("upper.csv", "Question,Answer\nIs water wet?,Yes.\n", [("Is water wet?", "Yes.")]),
        ("semicolon.csv", "\ufeffquestion;answer\r\nIs water wet?;Yes.\r\n", [("Is water wet?", "Yes.")]),
    ],
)
def test_layouts_of_other_projects(tmp_path: Path, name: str, content: str, pairs: list[tuple[str, str]]) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    rows = open_file(path, "domain").rows
    assert [(mapped.sample.question, mapped.sample.answer) for mapped in rows] == pairs


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer,answer\nIs water wet?,yes,no\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        open_file(path, "domain")
    assert caught.value.code == "table-column-twice"
