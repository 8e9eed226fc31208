"""The table a spec names in place of generation, opened: a file, or a dataset on the Hub, as samples.

What is done with them is in `core.data.import_pairs` (pairs with answers) and `core.data.refusals` (questions only).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from core.contracts.data_spec import ColumnsSpec, SourceSpec
from core.data.columns import ColumnMap, Mapped, map_columns, map_row, usual_names, wanted_row, with_source
from core.data.hub_datasets import open_dataset, read_dataset
from core.data.presets import DatasetChoice, choose_dataset
from core.data.row_shapes import plain_row
from core.data.tables import Row, read_rows
from core.data.training_pairs import Dataset
from core.errors import DataError
from core.settings import Settings, resolve_path

_USUAL = ColumnsSpec()
_LOOKED_AT = 20
"""Rows of a dataset that are read to check its columns."""


class OpenedSource(NamedTuple):
    """An opened source.

    Attributes:
        name: what it is called in messages: a path, or a dataset with commit, configuration and split.
        answered: False when there are questions only.
        rows: its usable rows, in order; reading them may raise `DataError`.
    """

    name: str
    answered: bool
    rows: Iterator[Mapped]


def open_source(spec: SourceSpec, dataset: Dataset, settings: Settings) -> OpenedSource:
    """Open the file or dataset of `data.safety` or `data.domain`.

    Raises:
        SpecError: the dataset's split or columns may not be used.
        DataError: it is not there, may not be read, or lacks a column.
    """
    if spec.source == "file":
        return open_file(resolve_path(str(spec.path)), dataset, spec.columns)
    return open_choice(choose_dataset(spec), dataset, settings)


def open_choice(choice: DatasetChoice, dataset: Dataset, settings: Settings, *, to_train: bool = True) -> OpenedSource:
    """Open a dataset; `to_train` as in `open_dataset`; raises as `open_source`."""
    opened = open_dataset(choice, settings, to_train=to_train)
    columns = map_columns(choice.columns, dataset, opened.columns, trust_answers=False)
    names = columns.read_names(opened.columns)
    rows = (row for row in read_dataset(opened, names) if wanted_row(columns, row.cells))
    return OpenedSource(opened.source, bool(columns.answer), _usable(rows, columns, opened.source))


def open_file(path: Path, dataset: Dataset, columns: ColumnsSpec = _USUAL) -> OpenedSource:
    """Open a JSONL, JSON, CSV, TSV or Parquet file; its first row shows whether it has answers.

    Chat messages and Alpaca instructions become a question and an answer, unless columns are named.
    """
    rows = read_rows(path) if columns.question else map(usual_names, map(plain_row, read_rows(path)))
    first = next(rows)
    mapping = map_columns(columns, dataset, first.cells, trust_answers=True)
    mapped = (
        with_source(map_row(row, mapping), f"{path.name}#{row.number}")
        for row in chain([first], rows)
        if wanted_row(mapping, row.cells)
    )
    return OpenedSource(str(path), bool(mapping.answer), mapped)


def check_source(spec: SourceSpec, dataset: Dataset, settings: Settings) -> str:
    """Look whether a source can be used, before anything is loaded: all of a file, the first rows of a dataset.

    Returns:
        What was found, in words.

    Raises:
        SafeMergeError: as `open_source`, and for rows that cannot be used.
    """
    material = open_source(spec, dataset, settings)
    if spec.source == "file":
        count = sum(1 for _ in material.rows)
        what = "rows" if material.answered else "questions for the pool to refuse"
        return f"{count:,} {what} in {spec.path}"
    deque(islice(material.rows, _LOOKED_AT), maxlen=0)
    return f"{material.name}, {'with answers' if material.answered else 'questions for the pool to refuse'}"


def _usable(rows: Iterable[Row], columns: ColumnMap, source: str) -> Iterator[Mapped]:
    """The rows of a dataset that can be read as samples; others are passed over, unless none can."""
    wrong: DataError | None = None
    found = False
    for row in rows:
        try:
            mapped = map_row(row, columns)
        except DataError as error:
            wrong = wrong or error
            continue
        found = True
        yield with_source(mapped, f"{source}#{row.number}", provenance="dataset")
    if not found:
        raise wrong or DataError(f"{source} has no rows of the kind asked for.", "Check columns.where.")
