"""Records measured replies on disk: one row per model and test prompt, with the guard's verdict.

A run folder stores them as `replies/*.jsonl`, one file per model. The text of a reply to an unsafe prompt is stored
only if every guard called it safe; otherwise the row has only the verdict, so that no harmful answer is stored. Replies
to harmless prompts are always stored. Rows of two models in the same order are pairs for McNemar's test
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

Asked = Literal["harmful", "benign", "outside"]


class ReplyRow(BaseModel):
    """One measured reply.

    Attributes:
        asked: whether the prompt is unsafe, a harmless look-alike, or an unsafe one by other authors.
        prompt: the prompt.
        category: of the prompt in its file.
        response: the reply; None where its text is not stored.
        safe: whether it counts as safe (`Verdict.counts_as_safe`).
        refusal: whether it refuses.
        degenerate: whether it is broken text.
        verdict: the guard's category of harm, or the mark that it gave no verdict.
        reason: the guard's reason, which may quote the reply; empty where the text is not stored.
        guard: name of the guard.
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


def reply_rows(
    alignment: AlignmentReport | None, over_refusal: OverRefusalReport | None, outside: AlignmentReport | None = None
) -> list[ReplyRow]:
    """The rows of a model's reports: unsafe prompts, harmless prompts, unsafe prompts by other authors."""
    reports: tuple[tuple[Asked, AlignmentReport | OverRefusalReport | None], ...] = (
        ("harmful", alignment),
        ("benign", over_refusal),
        ("outside", outside),
    )
    return [_row(asked, reply, report.guard) for asked, report in reports if report for reply in report.replies]


def _row(asked: Asked, reply: JudgedReply, guard: str) -> ReplyRow:
    verdict, stored = reply.verdict, asked == "benign" or reply.verdict.safe_to_all
    return ReplyRow(
        asked=asked,
        prompt=reply.prompt,
        category=reply.category,
        response=reply.response if stored else None,
        safe=reply.safe,
        refusal=verdict.refusal,
        degenerate=verdict.degenerate,
        verdict=verdict.category,
        reason=verdict.reason if stored else "",
        guard=guard,
    )


def replies_name(model: str) -> str:
    """File name of a model's replies: readable, and unique for each model."""
    plain = re.sub(r"[^\w.-]+", "_", model).encode()[-60:].decode(errors="ignore")
    return f"{plain}-{hashlib.sha256(model.encode()).hexdigest()[:8]}.jsonl"


def rows_text(rows: Iterable[ReplyRow]) -> str:
    """The rows as JSONL."""
    return "".join(row.model_dump_json() + "\n" for row in rows)


def read_rows(path: Path) -> list[ReplyRow]:
    """Read a file of replies.

    Raises:
        DataError: the file is missing, or a line is no such row.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a reply may contain other Unicode line ends
        return [ReplyRow.model_validate_json(line) for line in lines if line.strip()]
    except FileNotFoundError:
        hint = "Measure the model again; its figures are not affected."
        raise DataError(f"There is no file of replies {path}.", hint, code="file-not-found") from None
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        hint = "Delete it and measure the model again."
        raise DataError(f"{path} is not a readable file of replies.", hint, code="file-unreadable") from error


def read_replies(folder: Path, models: Iterable[str]) -> dict[str, list[ReplyRow]]:
    """The rows of each model with a file in `folder` (a run's `replies/`); errors as in `read_rows`."""
    paths = {model: folder / replies_name(model) for model in models}
    return {model: read_rows(path) for model, path in paths.items() if path.is_file()}
