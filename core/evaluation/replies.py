"""Measured replies on disk: one row for each test prompt a model was put, with the guard's verdict.

A run folder has them as `replies/*.jsonl`, a file a model. A reply to an unsafe prompt is kept only where every guard
called it safe; of the others the row keeps the verdict without the text, so that no harmful answer is stored. Replies
to harmless prompts are kept. Rows of two models in the same order are pairs, which is what McNemar's test compares
(`core.evaluation.paired_tests`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import DataError
from core.evaluation.alignment import AlignmentReport, JudgedReply, OverRefusalReport

Asked = Literal["harmful", "benign"]


class ReplyRow(BaseModel):
    """One measured reply.

    Attributes:
        asked: whether the prompt is an unsafe one or a harmless look-alike.
        prompt: the prompt; `category` is its file's.
        response: what the model said; None where it is not kept.
        safe: whether it counts as safe (`Verdict.counts_as_safe`).
        refusal: whether it refuses.
        degenerate: whether it is broken text.
        verdict: the guard's category of harm, or its word that it gave no verdict.
        reason: why the guard says so, which may quote the reply; empty where that is not kept.
        guard: who judged.
    """

    model_config = ConfigDict(frozen=True)

    asked: Asked
    prompt: str
    category: str = ""
    response: str | None = None
    safe: bool
    refusal: bool
    degenerate: bool
    verdict: str = ""
    reason: str = ""
    guard: str = ""


def reply_rows(alignment: AlignmentReport | None, over_refusal: OverRefusalReport | None) -> list[ReplyRow]:
    """The rows of a model's two reports, unsafe prompts first."""
    unsafe = [_row("harmful", reply, alignment.guard) for reply in alignment.replies] if alignment else []
    harmless = [_row("benign", reply, over_refusal.guard) for reply in over_refusal.replies] if over_refusal else []
    return unsafe + harmless


def _row(asked: Asked, reply: JudgedReply, guard: str) -> ReplyRow:
    verdict, kept = reply.verdict, asked == "benign" or reply.verdict.safe_to_all
    return ReplyRow(
        asked=asked,
        prompt=reply.prompt,
        category=reply.category,
        response=reply.response if kept else None,
        safe=reply.safe,
        refusal=verdict.refusal,
        degenerate=verdict.degenerate,
        verdict=verdict.category,
        reason=verdict.reason if kept else "",
        guard=guard,
    )


def replies_name(model: str) -> str:
    """File name of a model's replies: readable, and different for different models."""
    plain = re.sub(r"[^\w.-]+", "_", model).encode()[-60:].decode(errors="ignore")
    return f"{plain}-{hashlib.sha256(model.encode()).hexdigest()[:8]}.jsonl"


def rows_text(rows: Iterable[ReplyRow]) -> str:
    """The rows as JSONL."""
    return "".join(row.model_dump_json() + "\n" for row in rows)


def read_rows(path: Path) -> list[ReplyRow]:
    """Read a file of replies.

    Raises:
        DataError: it is missing, or a line is no such row.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # what else Unicode calls a line end may be in a reply
        return [ReplyRow.model_validate_json(line) for line in lines if line.strip()]
    except FileNotFoundError:
        raise DataError(f"There are no replies in {path}.", "Measure the model again; the figures stand.") from None
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as replies.", "Delete it and measure the model again.") from error


def read_replies(folder: Path, models: Iterable[str]) -> dict[str, list[ReplyRow]]:
    """The rows of each model that has a file in `folder` (a run's `replies/`); raises `DataError` as `read_rows`."""
    paths = {model: folder / replies_name(model) for model in models}
    return {model: read_rows(path) for model, path in paths.items() if path.is_file()}
