"""The rows of a file of training pairs, with a button to edit each; and the first rows of an uploaded table.

Safety pairs and uploaded rows are covered until the visitor clicks.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.data.editing import TablePreview
from core.data.training_pairs import Dataset, Sample
from safemerge_ui.views.markup import badge, covered, empty, scrolling, text
from safemerge_ui.views.names import category_name

PAGE_SIZE = 12
_CELL_CHARACTERS = 80


def pages_of(samples: Sequence[Sample]) -> int:
    """Return how many pages the rows fill, at least one."""
    return max(1, -(-len(samples) // PAGE_SIZE))


def row_cards(samples: Sequence[Sample], dataset: Dataset, page: int = 1) -> str:
    """Return one page of rows (1-based), in the order of the file."""
    if not samples:
        return empty("No file of pairs.", "Copy the pairs of the run on this page, or upload a table.")
    first = (max(1, min(page, pages_of(samples))) - 1) * PAGE_SIZE
    cards = "".join(
        _card(index, sample, dataset) for index, sample in enumerate(samples[first : first + PAGE_SIZE], start=first)
    )
    return f'<div class="sm-cards" tabindex="0" role="region" aria-label="Rows to edit">{cards}</div>'


def _card(index: int, sample: Sample, dataset: Dataset) -> str:
    body = f'<p class="sm-question">{text(sample.question)}</p><p class="sm-reply">{text(sample.answer or "–")}</p>'
    if dataset == "safety":
        body = covered(body, f"row-{index}-{sample.question}")
    category = f'<span class="sm-category">{text(category_name(sample.category))}</span>' if sample.category else ""
    edited = badge("Edited", "info") if sample.provenance == "edited" else ""
    edited += badge("Guards disagree", "warn") if sample.disputed else ""
    source = f'<span class="sm-mono">{text(sample.source)}</span> ' if sample.source else ""
    button = f'<button class="sm-link" data-row="{index}">Edit</button>'
    return (
        f'<article class="sm-card"><header>{badge(f"Row {index + 1}")}{edited}{category}</header>{body}'
        f"<footer>{source}{button}</footer></article>"
    )


def table_preview(table: TablePreview) -> str:
    """Return the first rows of an uploaded table, covered because they may contain harmful text."""
    head = "".join(f"<th>{text(name)}</th>" for name in table.names)
    body = "".join(f"<tr>{''.join(f'<td>{text(_short(cell))}</td>' for cell in row)}</tr>" for row in table.rows)
    table_html = f'<table class="sm-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    rows = scrolling("Rows") + f"{table_html}</div>"
    return f"<p>Columns: {text(', '.join(table.names))}</p>{covered(rows, 'table-preview', 'First rows')}"


def _short(cell: str) -> str:
    return cell if len(cell) <= _CELL_CHARACTERS else cell[: _CELL_CHARACTERS - 1] + "…"
