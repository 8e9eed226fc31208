"""`Sample`, one training pair, with the reasons a question can be dropped and the JSONL form of both training sets.

The pairs kept are exactly the `SampleSeen` events with `kept`; a file of samples is the same pairs, and can be given
to another run as its data.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from core.errors import DataError
from core.events import SampleSeen

Dataset = Literal["safety", "domain"]
Provenance = Literal["generated", "file"]

_QUESTION_KEYS = ("question", "prompt")
_ANSWER_KEYS = ("answer", "response")
_ROW_HINT = 'Write one object a line, like {"question": "...", "answer": "...", "category": "..."}.'


class DropReason(StrEnum):
    """Why a question is not used for training; the words are shown to a person."""

    NOT_JSON = "no question in JSON"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near-duplicate"
    HELD_OUT = "overlaps a held-out prompt"
    EXAMPLE = "copies an in-context example"
    NOBODY_REFUSES = "nobody refuses"
    NOT_A_REFUSAL = "the answer is not a refusal"
    BROKEN_ANSWER = "broken answer"
    NOT_NEEDED = "not needed: enough pairs of its kind"


@dataclass(frozen=True)
class Sample:
    """One training pair.

    Attributes:
        question: the user's turn.
        answer: the assistant's turn the merge should give: a refusal (safety) or an answer (domain).
        category: harm category slug, or the domain's name.
        answered_by: model that gave the answer; empty when unknown.
        provenance: whether the pair was generated in the run or came from a file.
    """

    question: str
    answer: str
    category: str = ""
    answered_by: str = ""
    provenance: Provenance = "generated"


def samples_from_events(
    events: Iterable[object], dataset: Dataset, provenance: Provenance = "generated"
) -> list[Sample]:
    """The pairs of `dataset` that were kept, in the order of the log; other events are passed over."""
    return [
        Sample(event.question, event.answer, event.category, event.answered_by, provenance)
        for event in events
        if isinstance(event, SampleSeen) and event.dataset == dataset and event.kept
    ]


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples as JSONL, one object a line with the fields of `Sample`; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in samples)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_samples(path: Path | str) -> list[Sample]:
    """Read pairs from JSONL: `question` or `prompt`, `answer` or `response`, and `category` where there is one.

    Files that `write_samples` wrote come back equal; rows from elsewhere get the provenance "file".

    Raises:
        DataError: the file is missing, not UTF-8 or empty, or a row is not usable; the message names the row.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no data file {source}.", "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read: {error}.", "Give a readable JSONL file in UTF-8.") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{source} has no rows.", _ROW_HINT)
    return [_parse_row(f"Row {number} of {source}", line) for number, line in lines]


def _parse_row(place: str, line: str) -> Sample:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}.", _ROW_HINT) from error
    if not isinstance(row, dict):
        raise DataError(f"{place} is a {type(row).__name__}, not a JSON object.", _ROW_HINT)
    return Sample(
        question=_text_of(place, row, _QUESTION_KEYS),
        answer=_text_of(place, row, _ANSWER_KEYS),
        category=_label_of(place, row, "category"),
        answered_by=_label_of(place, row, "answered_by"),
        provenance="generated" if row.get("provenance") == "generated" else "file",
    )


def _text_of(place: str, row: dict[str, Any], keys: Sequence[str]) -> str:
    key = next((key for key in keys if key in row), None)
    if key is None:
        wanted, found = " or ".join(f"'{key}'" for key in keys), ", ".join(map(str, row)) or "none"
        raise DataError(f"{place} has no {wanted}; its keys: {found}.", _ROW_HINT)
    value = row[key]
    if not isinstance(value, str):
        raise DataError(f"{place}: '{key}' is a {type(value).__name__}, not text.", _ROW_HINT)
    if not value.strip():
        raise DataError(f"{place}: '{key}' is empty.", "Remove the row or fill it in.")
    return value.strip()


def _label_of(place: str, row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str | None):
        raise DataError(f"{place}: '{key}' is a {type(value).__name__}, not text.", _ROW_HINT)
    return (value or "").strip()
