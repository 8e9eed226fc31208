"""Reads the rows of a JSONL, CSV, TSV or Parquet file as mappings, incrementally, with errors that name the row.

`core.data.columns` gives the columns a meaning.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import DataError

MAX_CELL_CHARACTERS = 1_000_000
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")

_BATCH_ROWS = 1024
_ROW_HINT = 'Write one object per line, like {"question": "...", "answer": "...", "category": "..."}.'


class Row(NamedTuple):
    """One row: where it is (for error messages), its number, and column -> value."""

    place: str
    number: int
    cells: dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a table, in order.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or a row cannot be read.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower(), _jsonl)
    empty = True
    try:
        for row in reader(path):
            empty = False
            yield row
    except FileNotFoundError:
        raise DataError(f"There is no data file {path}.", "Check the path.", code="file-not-found") from None
    except UnicodeDecodeError as error:
        message = f"{path} cannot be read: it is not UTF-8 text (byte {error.start})."
        raise DataError(message, "Save the file with UTF-8 encoding.", code="not-utf8") from error
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise DataError(message, "Use a readable file.", code="file-unreadable") from error
    if empty:
        raise DataError(f"{path} has no rows.", _ROW_HINT, code="no-rows")


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"Row {number} of {path}"
                yield Row(place, number, parse_object(place, line, _ROW_HINT))


def parse_object(place: str, line: str, hint: str) -> dict[str, Any]:
    """Parse a line as a JSON object; raises `DataError` with `place` in the message, and `hint`."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}.", hint, code="not-json") from error
    if not isinstance(row, dict):
        message = f"{place} is a {type(row).__name__}, not a JSON object."
        raise DataError(message, hint, code="not-json-object")
    return row


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        number, header = 0, list[str]()
        while True:
            number += 1
            place = f"Row {number} of {path}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{place} is not CSV: {error}.", "Close every quote.", code="not-csv") from error
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                continue
            if len(cells) != len(header):
                message = f"{place} has {len(cells)} columns, but the header has {len(header)}."
                raise DataError(message, "Quote texts that contain commas or line breaks.", code="wrong-column-count")
            yield Row(place, number, dict(zip(header, cells, strict=True)))


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches(_BATCH_ROWS):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(f"Row {number} of {path}", number, cells)
    except ArrowException as error:
        message = f"{path} is not a readable Parquet file."
        raise DataError(message, "Write it again, or use JSONL or CSV.", code="not-parquet") from error
