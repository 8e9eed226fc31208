"""Maps the columns of an external table: a row of a file or dataset becomes a sample.

The question of a multiple-choice row contains its choices as lettered lines; its answer is the right choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from core.contracts.data_spec import ColumnsSpec
from core.data.tables import Row
from core.data.training_pairs import ANSWER_KEYS, QUESTION_KEYS, Dataset, Sample, sample_from_row, text_of
from core.errors import DataError

_CHOICES_HINT = "Name one column that has a list of choices, or one column for each choice, in `columns.choices`."
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class MappedRow(NamedTuple):
    """A sample from an external table.

    Attributes:
        sample: its answer is "" when the table has no answers.
        stem: the question without its choices, for finding leaks.
    """

    sample: Sample
    stem: str


class ColumnMap(NamedTuple):
    """The columns to read.

    Attributes:
        question: columns that may contain the question.
        answer: columns that may contain the answer; empty = the pool answers.
        category: column of the category.
        choices: columns of the choices.
        where: column -> required value.
    """

    question: tuple[str, ...]
    answer: tuple[str, ...]
    category: str
    choices: tuple[str, ...]
    where: Mapping[str, bool | int | str]

    @property
    def hint(self) -> str:
        """Hint for an error about a missing column."""
        return 'Name the columns in the source\'s `columns`, like {question: "prompt", answer: "reply"}.'

    def read_names(self, names: Iterable[str]) -> list[str]:
        """The columns of a table that are needed."""
        needed = {name.split(".")[0] for name in (*self.question, *self.answer, self.category, *self.choices)}
        return [name for name in names if name in needed or name in self.where]


def map_columns(spec: ColumnsSpec, dataset: Dataset, names: Iterable[str], *, trust_answers: bool) -> ColumnMap:
    """Complete a column map with the usual column names.

    Args:
        spec: columns that the user or a preset names.
        dataset: which training set the table is for.
        names: columns of the table.
        trust_answers: False ignores answers to safety questions unless `spec` names their column: in datasets of unsafe
            questions they are often harmful.
    """
    present = set(names)
    answer: tuple[str, ...] = (spec.answer,) if spec.answer else ()
    if not answer and (dataset == "domain" or trust_answers):
        answer = ANSWER_KEYS if dataset == "domain" or present & set(ANSWER_KEYS) else ()
    question = (spec.question,) if spec.question else QUESTION_KEYS
    return ColumnMap(question, answer, spec.category or "category", spec.choices, spec.where)


def usual_names(row: Row) -> Row:
    """The row with usual column names in lower case: `Question` is read as `question` where there is no other."""
    usual = {*QUESTION_KEYS, *ANSWER_KEYS, "category"}
    renamed = {name: str(name).casefold() for name in row.cells if str(name).casefold() in usual}
    return row._replace(
        cells={renamed[name] if renamed.get(name, name) not in row.cells else name: v for name, v in row.cells.items()}
    )


def matches_filter(columns: ColumnMap, cells: Mapping[str, Any]) -> bool:
    """Whether a row has the values that `where` requires; the text "false" of a CSV file equals false."""
    return all(_equal(_look_up(cells, name), value) for name, value in columns.where.items())


def map_row(row: Row, columns: ColumnMap) -> MappedRow:
    """Convert a row to a sample.

    Raises:
        DataError: a column is missing, or its value cannot be used; the message names the row.
    """
    if not columns.choices:
        keys = (*columns.question, *columns.answer)
        cells = {**row.cells, **{key: _look_up(row.cells, key) for key in keys if "." in key}}
        cells["category"] = _category(row, columns)
        sample = sample_from_row(row.place, cells, columns.question, columns.answer, columns.hint)
        return MappedRow(sample, sample.question)
    cells = {key: _look_up(row.cells, key) for key in columns.question if _look_up(row.cells, key) is not None}
    stem = text_of(row.place, cells, columns.question, columns.hint)
    labels, choices = _choices(row, columns.choices)
    lettered = [f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=False)]
    right = ""
    if columns.answer:
        right = lettered[_right_choice(row, columns.answer, labels, choices)]
    question = "\n".join([stem, *lettered])
    return MappedRow(Sample(question, right, _category(row, columns), provenance="file"), stem)


def with_source(mapped: MappedRow, source: str, **changes: Any) -> MappedRow:
    """`mapped` with the source and other changes, unless the row already has its own provenance."""
    if mapped.sample.provenance != "file":
        return mapped
    return mapped._replace(sample=replace(mapped.sample, source=source, **changes))


def _look_up(cells: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a field inside it (`a.b`)."""
    if name in cells:
        return cells[name]
    outer, _, inner = name.partition(".")
    value = cells.get(outer)
    return value.get(inner) if inner and isinstance(value, Mapping) else None


def _equal(value: Any, required: bool | int | str) -> bool:
    if isinstance(value, str) and not isinstance(required, str):
        return value.strip().casefold() == str(required).casefold()
    return bool(value == required and isinstance(value, bool) == isinstance(required, bool))


def _category(row: Row, columns: ColumnMap) -> str:
    """The category as text; for a mapping of names to booleans the first true name."""
    value = _look_up(row.cells, columns.category)
    if isinstance(value, Mapping):
        return next((str(name) for name, holds in value.items() if holds), "")
    if isinstance(value, float | list):
        message = f"{row.place}: '{columns.category}' is a {type(value).__name__}, not a name."
        raise DataError(message, columns.hint, code="wrong-cell-type")
    return "" if value is None else str(value).strip()


def _choices(row: Row, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labels and texts of the choices, from one column each, a list, a mapping, or ARC's {text: [], label: []}."""
    values = [_look_up(row.cells, name) for name in names]
    labels: list[Any] = []
    if len(values) == 1 and isinstance(values[0], Mapping) and "text" in values[0]:
        labels, values = list(values[0].get("label") or ()), list(values[0]["text"])
    elif len(values) == 1 and isinstance(values[0], Mapping):
        labels, values = list(values[0]), list(values[0].values())
    elif len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    texts = [value.strip() if isinstance(value, str) else "" for value in values]
    if not 2 <= len(texts) <= len(_LETTERS) or not all(texts):
        message = f"{row.place}: {', '.join(names)} do not contain at least two choices."
        raise DataError(message, _CHOICES_HINT, code="choices-missing")
    return [str(label) for label in labels], texts


def _right_choice(row: Row, names: Sequence[str], labels: list[str], choices: list[str]) -> int:
    """Index of the right choice, given as index (from 0), label, letter, number in a text (from 1), or its text."""
    name = next((name for name in names if _look_up(row.cells, name) is not None), None)
    value = _look_up(row.cells, name) if name else None
    place = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str):
        text = value.strip()
        if text in labels:
            place = labels.index(text)
        elif text in choices:
            place = choices.index(text)
        elif len(text) == 1 and text.upper() in _LETTERS:
            place = _LETTERS.index(text.upper())
        elif text.isdecimal():
            place = int(text) - 1
    if place is None or not 0 <= place < len(choices):
        hint = "The answer must be the right choice's index (from 0), letter, label or text."
        message = f"{row.place}: {' or '.join(names)} names none of the {len(choices)} choices."
        raise DataError(message, hint, code="answer-not-a-choice")
    return place
