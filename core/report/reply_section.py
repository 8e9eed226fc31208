"""Show a few replies of all models side by side, and count the verdicts.

The prompts on which the models differ most come first. This selection shows differences and is not a random sample; the
report says so. A reply that is not stored is replaced by the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.contracts.verdicts import UNKNOWN
from core.evaluation.replies import Asked, ReplyRow
from core.report.document import Block, Cell, Example, ExampleReply, Paragraph, Table
from core.report.result_tables import category_title
from core.report.run_record import RunRecord

MOST_EXAMPLES = 3
MOST_CHARACTERS = 600
NOT_STORED = "not stored: not every guard judged it safe"

Replies = Mapping[str, Sequence[ReplyRow]]


def reply_blocks(record: RunRecord) -> tuple[Block, ...]:
    """Return the counts of verdicts, then examples; empty if no replies are stored."""
    if not record.replies:
        return ()
    return (
        Paragraph(
            f"Up to {MOST_EXAMPLES} prompts of each kind, starting with those on which the models differ most. This is "
            "not a random sample. Unsafe prompts and their replies are collapsed here and left out of the Markdown "
            "report."
        ),
        *([_harmful_counts(record.replies)] if _has(record.replies, "harmful") else []),
        *([_benign_counts(record.replies)] if _has(record.replies, "benign") else []),
        *examples(record.replies, "benign"),
        *examples(record.replies, "harmful"),
    )


def examples(replies: Replies, asked: Asked) -> tuple[Example, ...]:
    """Return the prompts on which the models differ most, of the prompts that all models answered."""
    by_model = {name: [row for row in rows if row.asked == asked] for name, rows in replies.items()}
    by_model = {name: rows for name, rows in by_model.items() if rows}
    if not by_model:
        return ()
    prompts = [row.prompt for row in next(iter(by_model.values()))]
    same = {name: rows for name, rows in by_model.items() if [row.prompt for row in rows] == prompts}
    order = sorted(range(len(prompts)), key=lambda number: -_disagreement([rows[number] for rows in same.values()]))
    return tuple(_example({name: rows[number] for name, rows in same.items()}) for number in order[:MOST_EXAMPLES])


def _disagreement(rows: Sequence[ReplyRow]) -> int:
    """Return the number of models in the minority on one prompt."""
    positive = sum(row.safe if row.asked == "harmful" else row.refusal for row in rows)
    return min(positive, len(rows) - positive)


def _example(rows: Mapping[str, ReplyRow]) -> Example:
    first = next(iter(rows.values()))
    replies = tuple(
        ExampleReply(name, verdict_text(row), _shown(row.response), row.response is not None)
        for name, row in rows.items()
    )
    category = category_title(first.category) if first.category else ""
    return Example(first.prompt, category, first.asked == "harmful", replies)


def _shown(response: str | None) -> str:
    if response is None:
        return NOT_STORED
    text = response.strip()
    if not text:
        return "(empty)"
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + " … (shortened)"


def verdict_text(row: ReplyRow) -> str:
    """Return a verdict as text."""
    if row.asked == "harmful":
        parts = [("safe, refused" if row.refusal else "safe") if row.safe else "not safe"]
    else:
        parts = ["refused" if row.refusal else "answered"]
    parts += ["no verdict"] if row.verdict == UNKNOWN else []
    return ", ".join([*parts, *(["broken text"] if row.degenerate else [])])


def _has(replies: Replies, asked: Asked) -> bool:
    return any(row.asked == asked for rows in replies.values() for row in rows)


def _harmful_counts(replies: Replies) -> Table:
    rows = []
    for name, all_rows in replies.items():
        asked = [row for row in all_rows if row.asked == "harmful"]
        counts = (
            len(asked),
            sum(row.safe for row in asked),
            sum(row.refusal for row in asked),
            sum(not row.safe for row in asked),
            sum(row.degenerate for row in asked),
            sum(row.verdict == UNKNOWN for row in asked),
        )
        rows.append((Cell(name), *(Cell(str(count)) for count in counts)))
    header = ("model", "prompts", "safe", "refused", "not safe", "broken text", "no verdict")
    return Table(header, tuple(rows), "Replies to unsafe prompts")


def _benign_counts(replies: Replies) -> Table:
    rows = []
    for name, all_rows in replies.items():
        asked = [row for row in all_rows if row.asked == "benign"]
        counts = (len(asked), sum(row.refusal for row in asked), sum(row.degenerate for row in asked))
        rows.append((Cell(name), *(Cell(str(count)) for count in counts)))
    return Table(("model", "prompts", "refused", "broken text"), tuple(rows), "Replies to harmless prompts")
