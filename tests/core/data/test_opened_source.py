"""Files and Hub datasets as sources of pairs: what is read of them, and what is said when they cannot be used."""

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

from core.contracts.data_spec import SourceSpec
from core.data.columns import Mapped
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


def read(spec: SourceSpec, dataset: Dataset, settings: Settings) -> list[Mapped]:
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


def test_of_beavertails_only_unsafe_questions_are_read(
    dataset_hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    sha = publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_train": BEAVERTAILS, "30k_test": []})
    material = open_source(source("beavertails"), "safety", settings)
    rows = list(material.rows)
    assert not material.answered
    assert [(row.sample.question, row.sample.category) for row in rows] == [
        ("Unsafe one?", "x"),
        ("Unsafe two?", "self_harm"),
    ]
    assert rows[1].sample.source == f"PKU-Alignment/BeaverTails@{sha}/30k_train#3"
    assert rows[1].sample.provenance == "dataset"
    assert "HARM" not in repr(rows)


def test_a_revision_and_columns_of_ones_own_are_read(
    dataset_hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    rows = [{"ask": f"Question {n}?", "meta": {"reply": f"Answer {n}."}, "kind": "k"} for n in range(3)]
    sha = publish(dataset_hub, tmp_path / "d", "o/own", {"train": rows})
    columns = {"question": "ask", "answer": "meta.reply", "category": "kind"}
    found = read(source(f"o/own@{sha}", split="train", columns=columns), "domain", settings)
    assert [(row.sample.question, row.sample.answer, row.sample.category) for row in found] == [
        (f"Question {n}?", f"Answer {n}.", "k") for n in range(3)
    ]


def test_rows_without_a_question_are_passed_over_unless_all_are(
    dataset_hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    publish(dataset_hub, tmp_path / "d", "o/holes", {"train": [{"question": ""}, {"question": "Q?"}]})
    rows = read(source("o/holes", split="train"), "safety", settings)
    assert [row.sample.question for row in rows] == ["Q?"]
    with pytest.raises(DataError, match=r"Row 1 of o/holes.* has no 'text'"):
        read(source("o/holes", split="train", columns={"question": "text"}), "safety", settings)


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
    with pytest.raises(ValueError, match=f"'{split}' is a test split"):
        source("o/d", split=split)
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
        with pytest.raises(SpecError, match="measured on"):
            choose_dataset(SourceSpec.model_construct(source="dataset", path=name, split=measured))


def test_beavertails_harmful_responses_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match="never read"):
        choose_dataset(source("PKU-Alignment/BeaverTails", columns={"answer": "response"}))


def test_a_typo_is_answered_with_close_ids(dataset_hub: HubServer, tmp_path: Path, settings: Settings) -> None:
    publish(dataset_hub, tmp_path / "d", "PKU-Alignment/BeaverTails", {"30k_train": BEAVERTAILS})
    with pytest.raises(DataError, match="no dataset PKU-Alignment/BeverTails") as error:
        read(source("PKU-Alignment/BeverTails", split="30k_train"), "safety", settings)
    assert "Similar: PKU-Alignment/BeaverTails" in error.value.hint
    with pytest.raises(DataError) as error:
        read(source("beavertail", split="30k_train"), "safety", settings)
    assert "known by name: beavertails" in error.value.hint


def test_a_gated_dataset_needs_a_token(dataset_hub: HubServer, tmp_path: Path, settings: Settings) -> None:
    from dataclasses import replace

    publish(dataset_hub, tmp_path / "d", "o/gated", {"train": [{"question": "Q?"}]}, gated=True)
    with pytest.raises(DataError, match="o/gated is gated") as error:
        check_source(source("o/gated", split="train"), "safety", settings)
    assert "HF_TOKEN" in error.value.hint
    allowed = replace(settings, token=dataset_hub.token)
    assert "questions for the pool" in check_source(source("o/gated", split="train"), "safety", allowed)


def test_a_wrong_split_names_the_splits_to_train_on(dataset_hub: HubServer, tmp_path: Path, settings: Settings) -> None:
    publish(dataset_hub, tmp_path / "d", "o/d", {"train": [{"question": "Q?"}], "test": [{"question": "T?"}]})
    with pytest.raises(DataError, match="no split 'trian'") as error:
        open_source(source("o/d", split="trian"), "safety", settings)
    assert error.value.hint == "It has: train."
    with pytest.raises(SpecError, match="needs a split"):
        open_source(source("o/d"), "safety", settings)
    with pytest.raises(DataError, match="cannot be read"):
        open_source(source("o/d", split="train", config="nope"), "safety", settings)


def test_a_hub_that_does_not_answer_is_named(settings: Settings) -> None:
    with pytest.raises(DataError, match="could not be reached"):
        open_source(source("o/d", split="train"), "safety", settings)


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


def test_a_safety_file_without_answers_is_left_to_the_pool(tmp_path: Path, settings: Settings) -> None:
    path = write_table(tmp_path / "q.csv", [{"prompt": "Q?", "category": "privacy"}])
    spec = SourceSpec(source="file", path=str(path))
    assert not open_source(spec, "safety", settings).answered
    assert check_source(spec, "safety", settings) == f"1 questions for the pool to refuse in {path}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"foo,bar\n1,2\n", "no 'question' or 'prompt'; its keys: foo, bar"),
        ("a.csv", b"question,answer\nQ?,A.,more\n", "Row 2 .* has 3 columns"),
        ("a.csv", b'question,answer\n"Q?,A.\n', "is not CSV"),
        ("a.csv", b"question,answer\n", "has no rows"),
        ("a.csv", "question,answer\nQü?,A.\n".encode("latin-1"), "not UTF-8 text"),
        ("a.jsonl", b"[]\n", "has no rows"),
        ("a.jsonl", '{"question": "ü"}\n'.encode("latin-1"), "not UTF-8 text"),
        ("a.parquet", b"PAR1 not really", "not a readable Parquet file"),
    ],
)
def test_a_wrong_file_is_named(name: str, content: bytes, message: str, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SafeMergeError, match=message):
        read(SourceSpec(source="file", path=str(tmp_path / name)), "domain", settings)


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
