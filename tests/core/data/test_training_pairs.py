"""Samples on disk: what was written comes back, other people's rows are read, wrong rows are named."""

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
    ("row", "message"),
    [
        ("not json", "Row 2 of .* is not JSON"),
        ("[1]", "is a list"),
        ('{"question": "Q?"}', "has no 'answer' or 'response'; its keys: question"),
        ('{"answer": "A."}', "has no 'question' or 'prompt'"),
        ('{"question": 3, "answer": "A."}', "'question' is a int"),
        ('{"question": "Q?", "answer": "  "}', "'answer' is empty"),
        ('{"question": "Q?", "answer": "A.", "category": 5}', "'category' is a int"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"question": "Q?", "answer": "A."}}\n{row}\n', encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_samples(path)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no data file"), (b"", "no rows"), (b"\xff\xfe", "cannot be read")]
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_samples(path)


def test_samples_are_the_kept_rows_of_their_dataset() -> None:
    events = [
        SampleSeen(dataset="safety", question="Q1", answer="No.", category="self_harm", answered_by="m", kept=True),
        SampleSeen(dataset="safety", question="Q2", kept=False, reason="duplicate"),
        SampleSeen(dataset="domain", question="Q3", answer="A3", kept=True),
        DataReady(safety_kept=1, safety_seen=2, domain_kept=1, domain_seen=1),
    ]
    assert samples_from_events(events, "safety") == [Sample("Q1", "No.", "self_harm", "m", "generated")]
    assert samples_from_events(events, "domain", "file") == [Sample("Q3", "A3", provenance="file")]
