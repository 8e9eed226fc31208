"""Rows of a JSONL, JSON, CSV, TSV or Parquet file as mappings, with errors that name the row.

JSON may be one object a line, an array of objects or texts, an object that holds one such array, or an object of
columns. CSV may be separated by commas, semicolons, tabs or bars. What the columns mean is not known here
(`core.data.columns`, `core.data.prompts`).
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from core.data.text_files import half_character, is_writable, read_text
from core.errors import DataError

MAX_CELL_CHARACTERS = 1_000_000
MAX_ROWS = 1_000_000
PROBE_LIMIT_S = 120.0
"""Longest trial read of a Parquet file in a process of its own."""
MAX_COLUMNS = 1_000
MAX_VALUES = 10_000_000
"""Most values of a Parquet file, over all columns, with those inside lists."""
MAX_UNPACKED_BYTES = 1_000_000_000
"""Most bytes of a Parquet file, unpacked: packed, a gigabyte of equal letters takes some hundred bytes."""
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TEXT_COLUMN = "text"
"""Column of a row that is a text and no object, as in a JSON array of texts."""

_DELIMITERS = ",;\t|"
_ROW_NAMES = {"prompt", "question", "goal", "behavior", "instruction", "messages", "conversations"}
_BATCH_ROWS = 64
_ROW_HINT = 'Write one object a line, like {"question": "...", "answer": "...", "category": "..."}.'
_JSON_HINT = "Give an array of objects, or one object a line."


class Row(NamedTuple):
    """One row: where it stands, for an error; its number in the file; and column -> value."""

    place: str
    number: int
    cells: dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a table, in order.

    Raises:
        DataError: the file is missing, empty, no text, has a cell that is too long, or a row cannot be read.
    """
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _text_rows(path, read_text(path))
    empty = True
    for row in rows:
        empty = False
        _check_cells(row)
        yield row
    if empty:
        raise DataError(f"{path} has no rows.", _ROW_HINT, code="no-rows")


def parse_rows(path: Path, text: str) -> Iterator[Row] | None:
    """The rows of a text file that is a table; None where it is plain text.

    Args:
        path: names the file in errors; its suffix says what it is meant to be.
        text: what it holds.
    """
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json") or is_json(text):
        return _json(path, text)
    return _csv(path, text) if suffix in (".csv", ".tsv") else None


def parse_object(place: str, line: str, hint: str) -> dict[str, Any]:
    """A line as a JSON object; raises `DataError` with `hint`, naming `place`, where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}.", hint, code="not-json") from error
    if not isinstance(row, dict):
        raise DataError(f"{place} is a {type(row).__name__}, not a JSON object.", hint, code="not-json-object")
    return row


def _check_cells(row: Row) -> None:
    for name, cell in row.cells.items():
        if isinstance(cell, str) and not is_writable(cell):
            raise half_character(f"{row.place}: '{name}'")
        if isinstance(cell, str | bytes) and len(cell) > MAX_CELL_CHARACTERS:
            raise DataError(
                f"{row.place}: '{name}' has {len(cell):,} characters.",
                f"A cell may have {MAX_CELL_CHARACTERS:,} at most.",
                code="cell-too-long",
            )


def _text_rows(path: Path, text: str) -> Iterator[Row]:
    return parse_rows(path, text) or _jsonl(path, text)


def _json(path: Path, text: str) -> Iterator[Row]:
    """One object a line where the first line is a whole one, else the file as one JSON document."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    one_line = text.strip() == first.strip()
    if isinstance(_document(first), dict) and (path.suffix.lower() in (".jsonl", ".ndjson") or not one_line):
        return _jsonl(path, text)
    document = _document(text)
    if isinstance(document, dict | list):
        return _document_rows(path, document)
    return _jsonl(path, text)


def is_json(text: str) -> bool:
    """Whether a text is JSON whatever its file is called: one document, or an object on its first line."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    return isinstance(_document(text.lstrip().partition("\n")[0]), dict) or isinstance(_document(text), dict | list)


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _jsonl(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"Row {number} of {path}"
            yield Row(place, number, parse_object(place, line, _ROW_HINT))


def _document_rows(path: Path, document: Any) -> Iterator[Row]:
    """Rows of a JSON document: an array, an object that holds one array, an object of columns, or one row."""
    if isinstance(document, dict):
        arrays = {key: value for key, value in document.items() if isinstance(value, list)}
        if document and len(arrays) == len(document) and _are_columns(arrays):
            document = [dict(zip(arrays, values, strict=True)) for values in zip(*arrays.values(), strict=True)]
        elif len(arrays) == 1 and _holds_rows(document, next(iter(arrays.values()))):
            document = next(iter(arrays.values()))
        else:
            document = [document]
    for number, value in enumerate(document, start=1):
        place = f"Row {number} of {path}"
        if isinstance(value, str):
            yield Row(place, number, {TEXT_COLUMN: value})
        elif isinstance(value, dict):
            yield Row(place, number, value)
        else:
            wrong = f"{place} is a {type(value).__name__}, not a JSON object."
            raise DataError(wrong, _JSON_HINT, code="not-json-object")


def _are_columns(arrays: dict[str, list[Any]]) -> bool:
    """Whether all arrays hold plain values, the same number of them; one array alone is rows, not a column."""
    plain = all(not isinstance(value, dict | list) for array in arrays.values() for value in array)
    return len(arrays) > 1 and plain and len({len(array) for array in arrays.values()}) == 1


def _holds_rows(document: dict[str, Any], array: list[Any]) -> bool:
    """Whether the one array of an object holds rows, and the object is no row itself."""
    if all(isinstance(value, str) for value in array):
        return len(document) == 1
    turns = any(isinstance(value, dict) and {"role", "from"} & value.keys() for value in array)
    a_row = _ROW_NAMES & {str(name).casefold() for name in document}
    return all(isinstance(value, dict) for value in array) and not turns and not a_row


def _csv(path: Path, text: str) -> Iterator[Row]:
    delimiter, text, skipped = _delimiter(path, text)
    header = list[str]()
    for number, cells in _records(path, text, delimiter, skipped):
        if not header:
            header = [cell.strip() for cell in cells]
            _check_header(path, header)
            continue
        if len(cells) != len(header):
            raise DataError(
                f"Row {number} of {path} has {len(cells)} columns where the header has {len(header)}.",
                "Quote texts that hold commas or line breaks.",
                code="wrong-column-count",
            )
        yield Row(f"Row {number} of {path}", number, dict(zip(header, cells, strict=True)))


def read_header(path: Path, text: str) -> list[str]:
    """Names of the columns of a CSV or TSV text; empty where it has no line."""
    delimiter, text, skipped = _delimiter(path, text)
    _, cells = next(_records(path, text, delimiter, skipped), (0, []))
    return [cell.strip() for cell in cells]


def _delimiter(path: Path, text: str) -> tuple[str, str, int]:
    """What separates the columns, the text without Excel's `sep=` line, and how many lines that took.

    The header decides: the separator that stands in it most often outside quotes.
    """
    first, _, rest = text.lstrip("\r\n").partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == len("sep=;"):
        return first.strip()[-1], rest, 1
    if path.suffix.lower() == ".tsv" and "\t" in first:
        return "\t", text, 0
    outside = "".join(first.split('"')[::2])
    counts = {delimiter: outside.count(delimiter) for delimiter in _DELIMITERS}
    return max(_DELIMITERS, key=lambda delimiter: counts[delimiter]), text, 0


def _records(path: Path, text: str, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, with their number in the file (1 is the first)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = skipped
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"Row {number} of {path} is not CSV: {error}.",
                "Close every quote; a cell may have 131,072 characters at most.",
                code="not-csv",
            ) from error
        if any(cell.strip() for cell in cells):
            yield number, cells


def _check_header(path: Path, header: list[str]) -> None:
    twice = [name for name, count in Counter(name.casefold() for name in header if name).items() if count > 1]
    if twice:
        raise DataError(
            f"{path} has more than one column named '{twice[0]}'.",
            "Remove or rename one of them.",
            code="table-column-twice",
        )


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    if path.is_file() and not _is_survived(path):
        raise _not_parquet(path)
    try:
        with ParquetFile(path) as table:
            _check_size(path, table.metadata)
            number = unpacked = 0
            for batch in table.iter_batches(_BATCH_ROWS):
                unpacked += batch.nbytes
                if number + batch.num_rows > MAX_ROWS or unpacked > MAX_UNPACKED_BYTES:
                    raise _too_large(path, f"more than {number:,} rows, {unpacked:,} bytes unpacked")
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(f"Row {number} of {path}", number, cells)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the path.", code="file-not-found") from None
    except MemoryError as error:
        raise _too_large(path, "more data than fits into memory") from error
    except (ArrowException, ValueError, OverflowError) as error:
        raise _not_parquet(path) from error
    except OSError as error:
        if error.errno is None:
            raise _not_parquet(path) from error
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", "Give a readable file.", code="file-unreadable"
        ) from error


def _is_survived(path: Path) -> bool:
    """Whether a process that reads the file ends as it should (`core.data.parquet_probe`)."""
    probe = [sys.executable, str(Path(__file__).with_name("parquet_probe.py")), str(path)]
    try:
        return subprocess.run(probe, capture_output=True, timeout=PROBE_LIMIT_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _check_size(path: Path, metadata: Any) -> None:
    """Refuse a Parquet file by what its metadata says, before any data is unpacked."""
    rows, columns, groups = metadata.num_rows, metadata.num_columns, metadata.num_row_groups
    if rows > MAX_ROWS or columns > MAX_COLUMNS or groups * columns > MAX_COLUMNS * 100:
        raise _too_large(path, f"{rows:,} rows and {columns:,} columns in {groups:,} groups")
    chunks = [metadata.row_group(group).column(column) for group in range(groups) for column in range(columns)]
    values = sum(chunk.num_values for chunk in chunks)
    unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
    if values > MAX_VALUES or unpacked > MAX_UNPACKED_BYTES:
        raise _too_large(path, f"{values:,} values, {unpacked:,} bytes unpacked")


def _too_large(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} is too large: it has {what}.",
        f"Give at most {MAX_ROWS:,} rows, {MAX_COLUMNS:,} columns and {MAX_UNPACKED_BYTES:,} bytes.",
        code="table-too-large",
    )


def _not_parquet(path: Path) -> DataError:
    return DataError(
        f"{path} is not a readable Parquet file.", "Write it again, or give JSONL or CSV.", code="not-parquet"
    )
