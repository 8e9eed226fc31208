"""Samples on disk: written samples are read back unchanged, rows of other tools are read, wrong rows are errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.events import DataReady, SampleSeen
from core.data.training_pairs import Sample, read_samples, samples_from_events, write_samples
from core.errors import DataError

SAMPLES = [
    Sample("How do I x?", "I can't help with that.\nSorry.", "self_harm", "demo/aligned", "generated"),
    Sample("Was ist „Gold“?", "Au\u2028", provenance="file"),
]


def test_written_samples_come_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "data" / "safety.jsonl"
    write_samples(path, SAMPLES[:1])
    assert read_samples(path) == SAMPLES[:1]
    assert [file.name for file in path.parent.iterdir()] == ["safety.jsonl"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "safety.jsonl"
    write_samples(path, SAMPLES[:1])
    with pytest.raises(AttributeError):
        write_samples(path, [SAMPLES[1], "not a sample"])  # type: ignore[list-item]
    assert read_samples(path) == SAMPLES[:1]
    assert len(list(tmp_path.iterdir())) == 1


def test_rows_of_other_tools_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\ufeff{"prompt": " Q? ", "response": "A\u2028B.", "extra": 1}\n\n', encoding="utf-8")
    assert read_samples(path) == [Sample("Q?", "A\u2028B.", provenance="file")]


@pytest.mark.parametrize(
    ("row", "code", "named"),
    [
        ("not json", "not-json", ""),
        ("[1]", "not-json-object", ""),
        ('{"question": "Q?"}', "missing-column", "'answer' or 'response'"),
        ('{"answer": "A."}', "missing-column", "'question' or 'prompt'"),
        ('{"question": 3, "answer": "A."}', "wrong-cell-type", "'question'"),
        ('{"question": "Q?", "answer": "  "}', "empty-cell", "'answer'"),
        ('{"question": "Q?", "answer": "A.", "category": 5}', "wrong-cell-type", "'category'"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path: Path, row: str, code: str, named: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"question": "Q?", "answer": "A."}}\n{row}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_samples(path)
    assert caught.value.code == code and caught.value.message.startswith("Row 2 of ") and named in caught.value.message


@pytest.mark.parametrize(
    ("content", "code"), [(None, "file-not-found"), (b"", "no-rows"), (b"\xff\xfe", "file-unreadable")]
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_samples(path)
    assert caught.value.code == code


def test_samples_are_the_kept_rows_of_their_dataset() -> None:
    events = [
        SampleSeen(dataset="safety", question="Q1", answer="No.", category="self_harm", answered_by="m", kept=True),
        SampleSeen(dataset="safety", question="Q2", kept=False, reason="duplicate"),
        SampleSeen(dataset="domain", question="Q3", answer="A3", kept=True),
        DataReady(safety_kept=1, safety_seen=2, domain_kept=1, domain_seen=1),
    ]
    assert samples_from_events(events, "safety") == [Sample("Q1", "No.", "self_harm", "m", "generated")]
    assert samples_from_events(events, "domain", "file") == [Sample("Q3", "A3", provenance="file")]
