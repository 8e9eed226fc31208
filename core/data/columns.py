"""What the columns of a foreign table mean: a row of a file or dataset becomes a sample.

A question of a multiple-choice test is asked with its choices as lettered lines, and answered with the right one.
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


class Mapped(NamedTuple):
    """A sample from elsewhere.

    Attributes:
        sample: with the answer "" when the table has none.
        stem: the question without its choices, by which leaks are found.
    """

    sample: Sample
    stem: str


class ColumnMap(NamedTuple):
    """Which columns are read.

    Attributes:
        question: columns that may hold the question.
        answer: columns that may hold the answer; none = the pool answers.
        category: column of the category.
        choices: columns of the choices.
        where: column -> the value that a row must have there.
    """

    question: tuple[str, ...]
    answer: tuple[str, ...]
    category: str
    choices: tuple[str, ...]
    where: Mapping[str, bool | int | str]

    @property
    def hint(self) -> str:
        """What to do when a column is not there."""
        return 'Name the columns in the source\'s `columns`, like {question: "prompt", answer: "reply"}.'

    def read_names(self, names: Iterable[str]) -> list[str]:
        """Those of a table's columns that are read at all."""
        wanted = {name.split(".")[0] for name in (*self.question, *self.answer, self.category, *self.choices)}
        return [name for name in names if name in wanted or name in self.where]


def map_columns(spec: ColumnsSpec, dataset: Dataset, names: Iterable[str], *, trust_answers: bool) -> ColumnMap:
    """Complete a mapping by the usual names.

    Args:
        spec: what a person or a preset says.
        dataset: which training set the table is for.
        names: columns of the table.
        trust_answers: False leaves out answers of safety questions that nobody asked for by name: in datasets of
            unsafe questions they are often harmful.
    """
    found = set(names)
    answer: tuple[str, ...] = (spec.answer,) if spec.answer else ()
    if not answer and (dataset == "domain" or trust_answers):
        answer = ANSWER_KEYS if dataset == "domain" or found & set(ANSWER_KEYS) else ()
    question = (spec.question,) if spec.question else QUESTION_KEYS
    return ColumnMap(question, answer, spec.category or "category", spec.choices, spec.where)


def usual_names(row: Row) -> Row:
    """The row with usual column names in lower case: `Question` is read as `question` where there is no other."""
    usual = {*QUESTION_KEYS, *ANSWER_KEYS, "category"}
    renamed = {name: str(name).casefold() for name in row.cells if str(name).casefold() in usual}
    return row._replace(
        cells={renamed[name] if renamed.get(name, name) not in row.cells else name: v for name, v in row.cells.items()}
    )


def wanted_row(columns: ColumnMap, cells: Mapping[str, Any]) -> bool:
    """Whether a row has the values that are asked for; a CSV's text "false" equals false."""
    return all(_same(_look_up(cells, name), value) for name, value in columns.where.items())


def map_row(row: Row, columns: ColumnMap) -> Mapped:
    """Read a row.

    Raises:
        DataError: a column is missing, or its value is not usable; the message names the row.
    """
    if not columns.choices:
        keys = (*columns.question, *columns.answer)
        cells = {**row.cells, **{key: _look_up(row.cells, key) for key in keys if "." in key}}
        cells["category"] = _category(row, columns)
        sample = sample_from_row(row.place, cells, columns.question, columns.answer, columns.hint)
        return Mapped(sample, sample.question)
    cells = {key: _look_up(row.cells, key) for key in columns.question if _look_up(row.cells, key) is not None}
    stem = text_of(row.place, cells, columns.question, columns.hint)
    labels, choices = _choices(row, columns.choices)
    lettered = [f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=False)]
    right = ""
    if columns.answer:
        right = lettered[_right_choice(row, columns.answer, labels, choices)]
    question = "\n".join([stem, *lettered])
    return Mapped(Sample(question, right, _category(row, columns), provenance="file"), stem)


def with_source(mapped: Mapped, source: str, **changes: Any) -> Mapped:
    """The same with where it is from, unless the row brings its own provenance along."""
    if mapped.sample.provenance != "file":
        return mapped
    return mapped._replace(sample=replace(mapped.sample, source=source, **changes))


def _look_up(cells: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a field inside one (`a.b`)."""
    if name in cells:
        return cells[name]
    outer, _, inner = name.partition(".")
    value = cells.get(outer)
    return value.get(inner) if inner and isinstance(value, Mapping) else None


def _same(found: Any, wanted: bool | int | str) -> bool:
    if isinstance(found, str) and not isinstance(wanted, str):
        return found.strip().casefold() == str(wanted).casefold()
    return bool(found == wanted and isinstance(found, bool) == isinstance(wanted, bool))


def _category(row: Row, columns: ColumnMap) -> str:
    """The category in words; of a mapping to true and false the first that is true."""
    value = _look_up(row.cells, columns.category)
    if isinstance(value, Mapping):
        return next((str(name) for name, holds in value.items() if holds), "")
    if isinstance(value, float | list):
        raise DataError(f"{row.place}: '{columns.category}' is a {type(value).__name__}, not a name.", columns.hint)
    return "" if value is None else str(value).strip()


def _choices(row: Row, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labels and texts of the choices: from one column each, a list, a mapping, or ARC's {text: [], label: []}."""
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
        raise DataError(f"{row.place}: {', '.join(names)} do not hold at least two choices.", _CHOICES_HINT)
    return [str(label) for label in labels], texts


def _right_choice(row: Row, names: Sequence[str], labels: list[str], choices: list[str]) -> int:
    """Position of the right choice: given as position (from 0), label, letter, number in text (from 1), or its text."""
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
        hint = "The answer is the right choice's position (from 0), letter, label or text."
        raise DataError(f"{row.place}: {' or '.join(names)} names none of the {len(choices)} choices.", hint)
    return place
