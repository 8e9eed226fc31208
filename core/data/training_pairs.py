"""Training pairs (`Sample`), the reasons for dropping a question, and the JSONL format of both training sets.

The kept pairs are exactly the `SampleSeen` events with `kept`. A file of samples contains the same pairs and can be the
data of another run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import TypeAdapter, ValidationError

from core.contracts.data_spec import TrainingSetSpec
from core.contracts.events import SampleSeen
from core.contracts.reply_verdicts import ReplyVerdict
from core.durable import write_atomic
from core.errors import DataError

Dataset = Literal["safety", "domain", "benign"]
DATASETS: tuple[Dataset, ...] = ("safety", "domain", "benign")
Provenance = Literal["generated", "dataset", "file", "edited"]

QUESTION_KEYS = ("question", "prompt")
ANSWER_KEYS = ("answer", "response")
FALLBACK = "written refusal"
"""`answered_by` of our own refusals, used when no model of the pool refused (`core.data.refusals`)."""
PERSON = "a person"
"""`guard` of a row on which guards disagreed and a person decided."""
MAX_PAIR_CHARACTERS = 20_000
"""Maximum length of an imported pair, about 5,000 tokens; longer pairs would dominate the cost of scoring."""
_ROW_HINT = 'Write one object per line, like {"question": "...", "answer": "...", "category": "..."}.'


class DropReason(StrEnum):
    """Why a question is not used for training; the values are shown to users."""

    NOT_JSON = "no question in JSON"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near-duplicate"
    HELD_OUT = "overlaps a held-out prompt"
    EXAMPLE = "copies an in-context example"
    NOBODY_REFUSES = "nobody refuses"
    REFUSED = "the harmless question is refused"
    UNSAFE_ANSWER = "a guard calls the answer unsafe"
    NOT_A_REFUSAL = "the answer is not a refusal"
    BROKEN_ANSWER = "broken answer"
    NOT_NEEDED = "not needed: enough pairs of its kind"
    TOO_LONG = "too long"


@dataclass(frozen=True)
class Sample:
    """One training pair.

    Attributes:
        question: the user's turn.
        answer: the assistant's turn that the merge should give: a refusal (safety) or an answer (domain).
        category: harm category slug, or the domain's name.
        answered_by: model that gave the answer; empty when unknown.
        provenance: whether the pair was generated in the run, came from a dataset or file, or was edited by a person.
        source: origin of the question: a model, or a row of a dataset or file.
        guard: name of the guard that judged the replies; empty without one.
        verdicts: its verdict on each model's reply.
        seed: seed with which the question was sampled; None when it was not sampled.
        prompt_sha256: first 16 digits of the hash of the request for the question.
    """

    question: str
    answer: str
    category: str = ""
    answered_by: str = ""
    provenance: Provenance = "generated"
    source: str = ""
    guard: str = ""
    verdicts: tuple[ReplyVerdict, ...] = ()
    seed: int | None = None
    prompt_sha256: str = ""

    @property
    def disputed(self) -> bool:
        """Whether guards disagree on a reply to the question and no person has decided."""
        return self.guard != PERSON and any(not verdict.agreed for verdict in self.verdicts)

    @property
    def is_too_long(self) -> bool:
        """Whether the pair has more than `MAX_PAIR_CHARACTERS`."""
        return len(self.question) + len(self.answer) > MAX_PAIR_CHARACTERS

    def to_row(self) -> dict[str, Any]:
        """The fields as they are written to a file, without unknown values."""
        row = {field.name: getattr(self, field.name) for field in fields(self)}
        row["verdicts"] = [verdict.model_dump(exclude_defaults=True) for verdict in self.verdicts]
        return {name: value for name, value in row.items() if name in _ALWAYS_WRITTEN or value not in ("", None, [])}


class TrainingPairs(NamedTuple):
    """The pairs of a run: D_safety, D_expert, and D_benign, which may be empty."""

    safety: list[Sample]
    domain: list[Sample]
    benign: list[Sample]


_ALWAYS_WRITTEN = ("question", "category", "answered_by", "provenance")
_VERDICTS = TypeAdapter(tuple[ReplyVerdict, ...])


def provenances(training_set: TrainingSetSpec) -> tuple[Provenance, ...]:
    """The provenance of the pairs from each source of a training set."""
    return tuple("generated" if one.source == "generate" else one.source for one in training_set.sources)


def samples_from_events(events: Iterable[object], dataset: Dataset, *marks: Provenance) -> list[Sample]:
    """The kept pairs of `dataset` in the order of the log; other events are ignored.

    Args:
        events: of a run.
        dataset: the training set.
        marks: the provenance of each of its sources (`provenances`); default "generated".
    """
    return [
        Sample(
            event.question,
            event.answer,
            event.category,
            event.answered_by,
            marks[event.part] if marks else "generated",
            event.source,
            event.guard,
            event.verdicts,
            event.seed,
            event.prompt_sha256,
        )
        for event in events
        if isinstance(event, SampleSeen) and event.dataset == dataset and event.kept
    ]


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples as JSONL, atomically, one object per line with its known fields.

    Raises:
        RunError: the disk is full or the file cannot be written (`core.durable.write_atomic`).
    """
    write_atomic(path, "".join(json.dumps(sample.to_row(), ensure_ascii=False) + "\n" for sample in samples))


def was_edited(path: Path, samples: Sequence[Sample]) -> bool:
    """Whether a file holds other pairs than `samples`; False for a missing or damaged file, which holds none."""
    try:
        return read_samples(path) != list(samples)
    except DataError:
        return False


def read_samples(path: Path | str) -> list[Sample]:
    """Read pairs from JSONL: `question` or `prompt`, `answer` or `response`, and optionally `category`.

    Samples written with `write_samples` are read back unchanged; rows from other tools get the provenance "file".

    Raises:
        DataError: the file is missing, not UTF-8 or empty, or a row cannot be used; the message names the row.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no data file {source}.", "Check the path.", code="file-not-found") from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"{source} cannot be read: {error}."
        raise DataError(message, "Use a readable JSONL file in UTF-8.", code="file-unreadable") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{source} has no rows.", _ROW_HINT, code="no-rows")
    return [_parse_row(f"Row {number} of {source}", line) for number, line in lines]


def _parse_row(place: str, line: str) -> Sample:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}.", _ROW_HINT, code="not-json") from error
    if not isinstance(row, dict):
        message = f"{place} is a {type(row).__name__}, not a JSON object."
        raise DataError(message, _ROW_HINT, code="not-json-object")
    return sample_from_row(place, row)


def sample_from_row(
    place: str,
    row: Mapping[str, Any],
    question: Sequence[str] = QUESTION_KEYS,
    answer: Sequence[str] = ANSWER_KEYS,
    hint: str = _ROW_HINT,
) -> Sample:
    """Convert a row of a file to a sample; a row that `write_samples` wrote keeps its provenance.

    Args:
        place: where the row is, for error messages.
        row: column -> value.
        question: columns that may contain the question; the first existing one is used.
        answer: the same for the answer; empty = the row has no answer (it becomes "").
        hint: of the error about a row without these columns.

    Raises:
        DataError: a column is missing, empty, or not text.
    """
    sample = Sample(
        question=text_of(place, row, question, hint),
        answer=text_of(place, row, answer, hint) if answer else "",
        category=label_of(place, row, "category"),
        answered_by=label_of(place, row, "answered_by"),
        provenance="file",
    )
    if row.get("provenance") not in get_args(Provenance):
        return sample
    return replace(
        sample,
        provenance=row["provenance"],
        source=label_of(place, row, "source"),
        guard=label_of(place, row, "guard"),
        verdicts=_verdicts_of(place, row),
        seed=row["seed"] if isinstance(row.get("seed"), int) else None,
        prompt_sha256=label_of(place, row, "prompt_sha256"),
    )


def _verdicts_of(place: str, row: Mapping[str, Any]) -> tuple[ReplyVerdict, ...]:
    try:
        return _VERDICTS.validate_python(row.get("verdicts") or ())
    except ValidationError as error:
        message = f"{place}: 'verdicts' is not a list of verdicts."
        raise DataError(message, "Leave the column out.", code="wrong-cell-type") from error


def text_of(place: str, row: Mapping[str, Any], keys: Sequence[str], hint: str = _ROW_HINT) -> str:
    """The text in the first of `keys` that the row has; raises `DataError` when there is none."""
    key = next((key for key in keys if key in row), None)
    if key is None:
        needed, present = " or ".join(f"'{key}'" for key in keys), ", ".join(map(str, row)) or "none"
        raise DataError(f"{place} has no {needed}; its keys: {present}.", hint, code="missing-column")
    value = row[key]
    if not isinstance(value, str):
        message = f"{place}: '{key}' is a {type(value).__name__}, not text."
        raise DataError(message, hint, code="wrong-cell-type")
    if not value.strip():
        raise DataError(f"{place}: '{key}' is empty.", "Remove the row or fill it in.", code="empty-cell")
    return value.strip()


def label_of(place: str, row: Mapping[str, Any], key: str) -> str:
    """The text in column `key`, "" without one; raises `DataError` when it is no text."""
    value = row.get(key)
    if not isinstance(value, str | None):
        message = f"{place}: '{key}' is a {type(value).__name__}, not text."
        raise DataError(message, _ROW_HINT, code="wrong-cell-type")
    return (value or "").strip()
