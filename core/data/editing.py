"""Edits rows of training pairs by hand, and previews and converts external tables, for the Data tab.

Files are never modified. Each edit writes a new file that is named by its content, so that an active run keeps the rows
that it started with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from core.contracts.data_spec import ColumnsSpec
from core.data.opened_source import open_file
from core.data.tables import read_rows
from core.data.training_pairs import ANSWER_KEYS, PERSON, QUESTION_KEYS, Dataset, Sample, write_samples
from core.errors import DataError

_SHOWN_ROWS = 5
_USUAL_NAMES = {
    "question": (*QUESTION_KEYS, "instruction", "query", "text", "input"),
    "answer": (*ANSWER_KEYS, "refusal", "output", "reply", "completion", "target"),
    "category": ("category", "subject", "topic", "label", "type"),
}


class TablePreview(NamedTuple):
    """The start of a table.

    Attributes:
        names: its columns.
        rows: its first rows, as text.
        guess: question, answer and category -> the column that probably contains it ("" for none).
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    guess: dict[str, str]


def preview_table(path: Path) -> TablePreview:
    """The first rows of a JSONL, CSV, TSV or Parquet file; raises `DataError` when it cannot be read."""
    rows = [row.cells for row in islice(read_rows(path), _SHOWN_ROWS)]
    names = tuple(dict.fromkeys(name for cells in rows for name in cells))
    by_name = {name.casefold(): name for name in names}
    guess = {
        part: next((by_name[name] for name in usual if name in by_name), "") for part, usual in _USUAL_NAMES.items()
    }
    return TablePreview(names, tuple(tuple(str(cells.get(name, "")) for name in names) for cells in rows), guess)


def convert_table(path: Path, dataset: Dataset, *, question: str, answer: str, category: str) -> list[Sample]:
    """A table's rows as samples, with the columns that the user named ("" for none).

    Raises:
        DataError: a row cannot be used, or domain pairs have no answers.
    """
    if dataset == "domain" and not answer:
        raise DataError("Domain pairs need an answer.", "Choose the column of the answers.", code="no-answers")
    columns = ColumnsSpec(question=question or None, answer=answer or None, category=category or None)
    return [mapped.sample for mapped in open_file(path, dataset, columns).rows]


def read_editable(path: Path, dataset: Dataset) -> list[Sample]:
    """The rows of a file in their order; raises `DataError`."""
    return [mapped.sample for mapped in open_file(path, dataset).rows]


def edit_row(samples: Sequence[Sample], index: int, question: str, answer: str, category: str) -> list[Sample]:
    """The rows with the row at `index` replaced and marked as edited; a new answer belongs to no model.

    Raises:
        DataError: there is no such row, or its question is empty.
    """
    old = _row_at(samples, index)
    new = replace(old, question=_text("question", question), answer=answer.strip(), category=category.strip())
    if new == old:
        return list(samples)
    new = replace(new, provenance="edited", answered_by=old.answered_by if new.answer == old.answer else "")
    return [*samples[:index], new, *samples[index + 1 :]]


def exclude_row(samples: Sequence[Sample], index: int) -> list[Sample]:
    """The rows without the row at `index`; raises `DataError` when there is no such row, or no other."""
    _row_at(samples, index)
    if len(samples) == 1:
        raise DataError("This is the only row.", "Add another row first.", code="only-row")
    return [*samples[:index], *samples[index + 1 :]]


def decide_row(samples: Sequence[Sample], row: Sample, *, keep: bool) -> list[Sample]:
    """The rows after a person decided on a disputed row: with the row, marked as decided, or without it.

    Raises:
        DataError: a row to keep has no answer, or a row to leave out is the only one.
    """
    place = next((index for index, sample in enumerate(samples) if sample.question == row.question), None)
    if not keep:
        return list(samples) if place is None else exclude_row(samples, place)
    if not row.answer:
        hint = "Add it below with an answer of your own."
        raise DataError("No answer was recorded for this row.", hint, code="no-answers")
    decided = replace(row if place is None else samples[place], guard=PERSON)
    return [*samples, decided] if place is None else [*samples[:place], decided, *samples[place + 1 :]]


def add_row(samples: Sequence[Sample], question: str, answer: str, category: str) -> list[Sample]:
    """The rows and a new row at the end; raises `DataError` for an empty question."""
    return [
        *samples,
        Sample(_text("question", question), answer.strip(), category.strip(), provenance="edited", source="by hand"),
    ]


def keep_rows(samples: Sequence[Sample], folder: Path) -> Path:
    """Write rows to a file that is named by its content, and return its path.

    Raises:
        DataError: there are no rows, or only some of them have an answer.
    """
    if not samples:
        hint = "Choose a run with kept pairs, or upload a file."
        raise DataError("There are no rows to keep.", hint, code="no-rows")
    answered = sum(bool(sample.answer) for sample in samples)
    if 0 < answered < len(samples):
        message = f"{len(samples) - answered} of {len(samples)} rows have no answer."
        raise DataError(message, "Give an answer to every row, or to none.", code="some-answers-missing")
    text = json.dumps([sample.to_row() for sample in samples], ensure_ascii=False)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    if not path.exists():
        write_samples(path, samples)
    return path


def _row_at(samples: Sequence[Sample], index: int) -> Sample:
    if not 0 <= index < len(samples):
        raise DataError(f"There is no row {index + 1}.", f"There are {len(samples)} rows.", code="no-such-row")
    return samples[index]


def _text(name: str, value: str) -> str:
    if not value.strip():
        raise DataError(f"The {name} is empty.", f"Write a {name}.", code="empty-cell")
    return value.strip()
