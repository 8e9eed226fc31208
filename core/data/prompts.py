"""Reads prompt files: JSONL, CSV or plain text with one prompt per row.

Users write these files, so errors name the row, the columns that the file has, and what to change.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from core.data.tables import parse_object
from core.errors import DataError

MAX_PROMPT_CHARACTERS = 50_000


class Prompt(NamedTuple):
    """One prompt and its category in the file (empty when it has none)."""

    prompt: str
    category: str = ""


class _Row(NamedTuple):
    number: int
    prompt: Any
    category: Any


def read_prompts(path: Path | str, limit: int | None = None) -> list[Prompt]:
    """Read a file of prompts, without blank rows and repeated prompts (a repeated reply is no second trial).

    Args:
        path: `.jsonl` (objects with `prompt`, optional `category`), `.csv` (a `prompt` column with optional `category`,
            or a single column whose first row is its name if it is one word), or any other text file (one prompt per
            line).
        limit: maximum number of prompts, from the start; None reads all.

    Raises:
        DataError: the file is missing, empty or not UTF-8, has no prompt column, or a row cannot be used; the message
            names the row.
    """
    source = Path(path)
    if limit is not None and limit < 1:
        raise DataError(
            f"The limit of {limit} prompts is too small.", "Use a limit of 1 or more.", code="limit-too-small"
        )
    text = _read_text(source)
    readers = {".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows, ".csv": _csv_rows}
    rows = readers.get(source.suffix.lower(), _text_rows)(source, text)
    prompts = list(islice(distinct_prompts(_checked(source, row) for row in rows), limit))
    if not prompts:
        raise DataError(f"{source} has no prompts.", "Put one prompt in each row.", code="no-prompts")
    return prompts


def distinct_prompts(prompts: Iterable[Prompt]) -> Iterator[Prompt]:
    """Each prompt once, with its first category."""
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.prompt not in seen:
            seen.add(prompt.prompt)
            yield prompt


def _read_text(source: Path) -> str:
    try:
        text = source.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no prompt file {source}.", "Check the path.", code="file-not-found") from None
    except UnicodeDecodeError as error:
        message = f"{source} is not UTF-8 text (byte {error.start})."
        raise DataError(message, "Save the file with UTF-8 encoding.", code="not-utf8") from error
    except OSError as error:
        message = f"{source} cannot be read: {error.strerror}."
        raise DataError(message, "Use a readable file.", code="file-unreadable") from error
    if not text.strip():
        raise DataError(f"{source} is empty.", "Put one prompt in each row.", code="file-empty")
    return text


def _jsonl_rows(source: Path, text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        yield _Row(number, *_parse_object(source, number, line))


def _parse_object(source: Path, number: int, line: str) -> tuple[Any, Any]:
    hint = 'Write one object per line, like {"prompt": "...", "category": "..."}.'
    row = parse_object(f"Row {number} of {source}", line, hint)
    if "prompt" not in row:
        keys = ", ".join(map(str, row)) or "none"
        message = f"Row {number} of {source} has no 'prompt'; its keys: {keys}."
        raise DataError(message, hint, code="missing-column")
    return row["prompt"], row.get("category")


def _csv_rows(source: Path, text: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records = _numbered_records(source, reader)
    _, header = next(records)
    columns = [column.strip().lower() for column in header]
    at = _prompt_column(source, header, columns)
    category_at = columns.index("category") if "category" in columns else None
    if len(columns) == 1 and " " in columns[0]:
        yield _Row(1, header[0], None)
    for number, cells in records:
        if len(cells) <= at or len(cells) > len(columns):
            raise DataError(
                f"Row {number} of {source} has {len(cells)} columns, but the header has {len(columns)}.",
                "Quote prompts that contain commas or line breaks.",
                code="wrong-column-count",
            )
        category = cells[category_at] if category_at is not None and category_at < len(cells) else None
        yield _Row(number, cells[at], category)


def _numbered_records(source: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The non-blank records with their number (the header is row 1)."""
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = f"Close every quote. A prompt may have at most {MAX_PROMPT_CHARACTERS:,} characters."
            raise DataError(f"Row {number} of {source} is not CSV: {error}.", hint, code="not-csv") from error
        if any(cell.strip() for cell in cells):
            yield number, cells


def _prompt_column(source: Path, header: list[str], columns: list[str]) -> int:
    if "prompt" in columns:
        return columns.index("prompt")
    if len(columns) == 1:
        return 0
    names = ", ".join(column.strip()[:60] or "(unnamed)" for column in header[:20])
    message = f"{source} has no 'prompt' column; its columns: {names}."
    raise DataError(message, "Name the column of prompts 'prompt'.", code="missing-column")


def _text_rows(source: Path, text: str) -> Iterator[_Row]:  # noqa: ARG001 - the readers share one signature
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _Row(number, line, None)


def _checked(source: Path, row: _Row) -> Prompt:
    place = f"Row {row.number} of {source}"
    if not isinstance(row.prompt, str):
        message = f"{place}: 'prompt' is a {type(row.prompt).__name__}, not text."
        raise DataError(message, "Put the prompt in quotes.", code="wrong-cell-type")
    if not isinstance(row.category, str | None):
        message = f"{place}: 'category' is a {type(row.category).__name__}, not text."
        raise DataError(message, "Give the category a name.", code="wrong-cell-type")
    prompt = row.prompt.strip()
    if not prompt:
        raise DataError(f"{place} has an empty prompt.", "Remove the row or fill it in.", code="empty-cell")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise DataError(
            f"{place} has {len(prompt):,} characters; a prompt may have at most {MAX_PROMPT_CHARACTERS:,}.",
            "Shorten it, or check that rows are separated by line breaks and quotes are closed.",
            code="prompt-too-long",
        )
    return Prompt(prompt, (row.category or "").strip())
