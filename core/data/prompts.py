"""Files of prompts: a table with a column of prompts, or plain text with one prompt a line.

An error names the row, the columns that were found, and what to change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from core.contracts.data_spec import ColumnsSpec
from core.data.row_shapes import plain_row
from core.data.tables import TEXT_COLUMN, Row, is_json, parse_rows, read_header, read_rows
from core.data.text_files import half_character, is_writable, read_text
from core.errors import DataError

MAX_PROMPT_CHARACTERS = 50_000
PROMPT_COLUMNS = ("prompt", "goal", "behavior", "question", "query", "instruction", TEXT_COLUMN)
"""Usual names of the column of prompts, the first that a table has counts: ours, AdvBench's, HarmBench's, others'."""
_CONTEXT_COLUMN = "contextstring"
"""HarmBench's column of the text that a contextual behavior refers to; its own code puts it before the behavior."""
CATEGORY_COLUMNS = ("category", "semanticcategory", "type")
_OTHER_FORMATS = (".yaml", ".yml", ".toml", ".xml", ".py", ".ini")
"""Files in which a line is no prompt."""
_USUAL = ColumnsSpec()
_WORD = re.compile(r"\w+")


class Prompt(NamedTuple):
    """One prompt and the category its file gives it (empty when none)."""

    prompt: str
    category: str = ""


def read_prompts(path: Path | str, limit: int | None = None, columns: ColumnsSpec = _USUAL) -> list[Prompt]:
    """Read a file of prompts. Blank rows are skipped; a prompt that stands there twice is read once.

    Args:
        path: a table (JSONL, JSON, CSV, TSV or Parquet; `core.data.tables`) with a column of prompts and perhaps one
            of categories, or a text file with one prompt a line.
        limit: most prompts to read, from the top; None reads all.
        columns: which columns hold the prompt (`question`) and the `category`, where their names are not usual ones.

    Raises:
        DataError: the file is missing, empty or no text, has no column of prompts, or a row is not usable.
    """
    source = Path(path)
    if limit is not None and limit < 1:
        raise DataError(
            f"A limit of {limit} prompts reads nothing.", "Give a limit of 1 or more, or none.", code="limit-too-small"
        )
    prompts = list(islice(distinct_prompts(_prompts(source, columns)), limit))
    if not prompts:
        raise DataError(f"{source} has no prompts.", "Put one prompt in each row.", code="no-prompts")
    return prompts


def distinct_prompts(prompts: Iterable[Prompt]) -> Iterator[Prompt]:
    """Each prompt once, with the category that it had first."""
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.prompt not in seen:
            seen.add(prompt.prompt)
            yield prompt


def _prompts(source: Path, columns: ColumnsSpec) -> Iterator[Prompt]:
    if source.suffix.lower() == ".parquet":
        return (_table_prompt(row, columns) for row in read_rows(source))
    text = read_text(source)
    if not text.strip():
        raise DataError(f"{source} is empty.", "Put one prompt in each row.", code="file-empty")
    table = _table(source, text)
    if table is None:
        return _lines(source, text)
    return (_table_prompt(row, columns) for row in table)


def _table(source: Path, text: str) -> Iterator[Row] | None:
    """The rows of a table; None for plain text, as which a CSV of one column without a header counts."""
    if is_json(text):
        return parse_rows(source, text)
    csv = source.suffix.lower() in (".csv", ".tsv")
    header = read_header(source, text) if csv else _text_header(source, text)
    if csv and len(header) == 1:
        column = [] if _WORD.fullmatch(header[0]) else [Row(f"Row 1 of {source}", 1, {TEXT_COLUMN: header[0]})]
        rows = parse_rows(source, text) or iter(())
        named = (row._replace(cells={TEXT_COLUMN: next(iter(row.cells.values()))}) for row in rows)
        return iter([*column, *named])
    if header and not csv:
        return parse_rows(source.with_suffix(".csv"), text)
    return parse_rows(source, text)


def _text_header(source: Path, text: str) -> list[str]:
    """The columns of a text file whose first line is a header, such as `prompt,category`; else none."""
    header = read_header(source, text.partition("\n")[0].replace('"', ""))
    known = {name.casefold() for name in header} & {*PROMPT_COLUMNS}
    return header if known and all(_WORD.fullmatch(name) for name in header) and len(header) > 1 else []


def _lines(source: Path, text: str) -> Iterator[Prompt]:
    if source.suffix.lower() in _OTHER_FORMATS:
        wrong = f"{source} is not a file of prompts: {source.suffix} files are not read."
        raise DataError(wrong, "Give JSONL, JSON, CSV, TSV, Parquet, or text with one prompt a line.", code="file-kind")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    has_header = lines[0].strip().casefold() in PROMPT_COLUMNS and any(map(str.strip, lines[1:]))
    for number, line in enumerate(lines, start=1):
        if line.strip() and not (has_header and number == 1):
            yield _checked(f"Row {number} of {source}", line, None)


def _table_prompt(row: Row, columns: ColumnsSpec) -> Prompt:
    plain = row if columns.question else plain_row(row)
    names = {str(name).casefold(): name for name in plain.cells}
    asked = columns.question
    key = next((names[name] for name in ([asked.casefold()] if asked else PROMPT_COLUMNS) if name in names), None)
    if key is None:
        raise _no_column(row, asked, plain.cells)
    label = [columns.category.casefold()] if columns.category else CATEGORY_COLUMNS
    category = next((plain.cells[names[name]] for name in label if name in names), None)
    context = plain.cells.get(names.get(_CONTEXT_COLUMN, "")) if str(key).casefold() == "behavior" else None
    asked_text = plain.cells[key]
    if isinstance(context, str) and context.strip() and isinstance(asked_text, str):
        asked_text = f"{context.strip()}\n\n---\n\n{asked_text.strip()}"
    return _checked(row.place, asked_text, category)


def _no_column(row: Row, asked: str | None, cells: Mapping[str, Any]) -> DataError:
    found = ", ".join(str(name)[:60] or "(unnamed)" for name in list(cells)[:20]) or "none"
    wanted = f"'{asked}'" if asked else "of prompts"
    return DataError(
        f"{row.place} has no column {wanted}; found: {found}.",
        "Name the column of prompts 'prompt', or give its name: evaluation.prompt_column, or --column NAME.",
        code="missing-column",
    )


def _checked(place: str, prompt: Any, category: Any) -> Prompt:
    if not isinstance(prompt, str):
        raise DataError(
            f"{place}: the prompt is a {type(prompt).__name__}, not text.", "Put it in quotes.", code="wrong-cell-type"
        )
    if isinstance(category, list) and all(isinstance(part, str | int) for part in category):
        category = ", ".join(map(str, category))
    if isinstance(category, bool | float | dict | list):
        wrong = f"{place}: the category is a {type(category).__name__}, not text."
        raise DataError(wrong, "Give it a name.", code="wrong-cell-type")
    text = prompt.strip()
    if not text:
        raise DataError(f"{place} has an empty prompt.", "Remove the row or fill it in.", code="empty-cell")
    if not is_writable(text):
        raise half_character(place)
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise DataError(
            f"{place} has {len(text):,} characters; a prompt may have {MAX_PROMPT_CHARACTERS:,} at most.",
            "Shorten it, or check that rows are separated by line breaks and quotes are closed.",
            code="prompt-too-long",
        )
    return Prompt(text, "" if category is None else str(category).strip())
