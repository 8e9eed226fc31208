"""Opens the file or Hub dataset that a spec names as a source of samples.

`core.data.import_pairs` uses pairs with answers, and `core.data.refusals` questions without answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from core.contracts.data_spec import ColumnsSpec, SourceSpec
from core.data.columns import ColumnMap, MappedRow, map_columns, map_row, matches_filter, usual_names, with_source
from core.data.hub_datasets import open_dataset, read_dataset
from core.data.presets import DatasetChoice, choose_dataset
from core.data.row_shapes import plain_row
from core.data.tables import Row, read_rows
from core.data.training_pairs import Dataset
from core.errors import DataError
from core.settings import Settings, resolve_path

_DEFAULT_COLUMNS = ColumnsSpec()
_CHECKED_ROWS = 20
"""Number of rows of a dataset that are read to check its columns."""


class OpenedSource(NamedTuple):
    """An opened source.

    Attributes:
        name: for messages: a path, or a dataset with commit, configuration and split.
        answered: False when it has only questions.
        rows: its usable rows in order; reading them may raise `DataError`.
    """

    name: str
    answered: bool
    rows: Iterator[MappedRow]


def open_source(spec: SourceSpec, dataset: Dataset, settings: Settings) -> OpenedSource:
    """Open the file or dataset of `data.safety` or `data.domain`.

    Raises:
        SpecError: the dataset's split or columns may not be used.
        DataError: the source is missing or not accessible, or lacks a column.
    """
    if spec.source == "file":
        return open_file(resolve_path(str(spec.path)), dataset, spec.columns)
    return open_choice(choose_dataset(spec), dataset, settings)


def open_choice(choice: DatasetChoice, dataset: Dataset, settings: Settings, *, to_train: bool = True) -> OpenedSource:
    """Open a dataset; `to_train` as in `open_dataset`, errors as in `open_source`."""
    opened = open_dataset(choice, settings, to_train=to_train)
    columns = map_columns(choice.columns, dataset, opened.columns, trust_answers=False)
    names = columns.read_names(opened.columns)
    rows = (row for row in read_dataset(opened, names) if matches_filter(columns, row.cells))
    return OpenedSource(opened.source, bool(columns.answer), _usable(rows, columns, opened.source))


def open_file(path: Path, dataset: Dataset, columns: ColumnsSpec = _DEFAULT_COLUMNS) -> OpenedSource:
    """Open a JSONL, JSON, CSV, TSV or Parquet file; its first row decides whether it has answers.

    Chat messages and Alpaca instructions become a question and an answer, unless columns are named.
    """
    rows = read_rows(path) if columns.question else map(usual_names, map(plain_row, read_rows(path)))
    first = next(rows)
    mapping = map_columns(columns, dataset, first.cells, trust_answers=True)
    mapped = (
        with_source(map_row(row, mapping), f"{path.name}#{row.number}")
        for row in chain([first], rows)
        if matches_filter(mapping, row.cells)
    )
    return OpenedSource(str(path), bool(mapping.answer), mapped)


def check_source(spec: SourceSpec, dataset: Dataset, settings: Settings) -> str:
    """Check before a run that a source can be used: all rows of a file, the first rows of a dataset.

    Returns:
        A description of the source.

    Raises:
        SafeMergeError: as in `open_source`, or a row cannot be used.
    """
    opened = open_source(spec, dataset, settings)
    if spec.source == "file":
        count = sum(1 for _ in opened.rows)
        use = "answer" if dataset == "benign" else "refuse"
        what = "rows" if opened.answered and dataset != "benign" else f"questions for the pool to {use}"
        return f"{count:,} {what} in {spec.path}"
    deque(islice(opened.rows, _CHECKED_ROWS), maxlen=0)
    return f"{opened.name}, {'with answers' if opened.answered else 'questions for the pool to refuse'}"


def _usable(rows: Iterable[Row], columns: ColumnMap, source: str) -> Iterator[MappedRow]:
    """The rows of a dataset that can be converted to samples; raises if none can, and else skips the others."""
    first_error: DataError | None = None
    any_usable = False
    for row in rows:
        try:
            mapped = map_row(row, columns)
        except DataError as error:
            first_error = first_error or error
            continue
        any_usable = True
        yield with_source(mapped, f"{source}#{row.number}", provenance="dataset")
    if not any_usable:
        message = f"{source} has no rows that match columns.where."
        raise first_error or DataError(message, "Check columns.where.", code="no-matching-rows")
