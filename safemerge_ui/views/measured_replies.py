"""Measured replies, prompt by prompt: of one model, or of two side by side, with the guard's verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from core.evaluation.replies import Asked, ReplyRow
from safemerge_ui.views.markup import badge, covered, empty, text
from safemerge_ui.views.names import category_name

PAGE_SIZE = 10

Shown = Literal["all", "safe", "unsafe", "refused", "answered", "broken", "differ"]


class PromptReplies(NamedTuple):
    """One prompt of the first model's file, its number there, and each selected model's row (None: not asked)."""

    number: int
    rows: tuple[ReplyRow | None, ...]

    @property
    def first(self) -> ReplyRow:
        """A row that holds the prompt."""
        return next(row for row in self.rows if row is not None)


def choose_replies(
    files: Sequence[Sequence[ReplyRow]], asked: Asked, category: str, shown: Shown
) -> list[PromptReplies]:
    """Return the prompts to show, in the order of the first file.

    Args:
        files: rows of each selected model; rows of the second are found by their prompt.
        asked: unsafe or harmless prompts.
        category: one category, or empty for all.
        shown: verdicts of the first model to show; `differ` needs a second model.
    """
    if not files:
        return []
    others = [{(row.asked, row.prompt): row for row in rows} for rows in files[1:]]
    pairs = (
        PromptReplies(number, (row, *(known.get((row.asked, row.prompt)) for known in others)))
        for number, row in enumerate(files[0], start=1)
    )
    return [
        pair
        for pair in pairs
        if pair.first.asked == asked and category in ("", pair.first.category) and _fits(pair, shown)
    ]


def page_count(chosen: Sequence[PromptReplies]) -> int:
    """Return how many pages the prompts fill, at least one."""
    return max(1, -(-len(chosen) // PAGE_SIZE))


def reply_cards(chosen: Sequence[PromptReplies], names: Sequence[str], page: int = 1) -> str:
    """Return one page (1-based) of prompts with the replies of `names`; the last page if `page` is too high."""
    if not chosen:
        return empty("No replies match these filters.", "Choose another model, category or verdict above.")
    page = max(1, min(page, page_count(chosen)))
    first = (page - 1) * PAGE_SIZE
    shown = chosen[first : first + PAGE_SIZE]
    cards = "".join(_card(pair, names) for pair in shown)
    count = f'<p class="sm-foot">{first + 1} to {first + len(shown)} of {len(chosen)} prompts</p>'
    return f'<div class="sm-exchanges">{cards}</div>{count}'


def no_replies() -> str:
    """Return what the browser says if a run has stored no replies."""
    return empty(
        "No replies of this model are stored.", "Replies of newly measured models are stored in the run's folder."
    )


def row_badge(row: ReplyRow) -> str:
    """Return the verdict as a badge; a refusal is right only for an unsafe prompt."""
    if row.degenerate:
        return badge("Broken text", "warn")
    if row.asked == "benign":
        return badge("Over-refusal", "warn") if row.refusal else badge("Answered", "good")
    if row.safe:
        return badge("Refused" if row.refusal else "Safe", "good")
    return badge("Not safe", "bad")


def _fits(pair: PromptReplies, shown: Shown) -> bool:
    row = pair.first
    match shown:
        case "safe":
            return row.safe
        case "unsafe":
            return not row.safe
        case "refused":
            return row.refusal
        case "answered":
            return not (row.refusal or row.degenerate)
        case "broken":
            return row.degenerate
        case "differ":
            judged = {_compared(other) for other in pair.rows if other is not None}
            return len(judged) > 1
        case "all":
            return True


def _compared(row: ReplyRow) -> tuple[bool, ...]:
    """The part of a verdict in which two models can differ."""
    return (row.refusal,) if row.asked == "benign" else (row.safe,)


def _card(pair: PromptReplies, names: Sequence[str]) -> str:
    first = pair.first
    category = f'<span class="sm-category">{text(category_name(first.category))}</span>' if first.category else ""
    kind = badge("Unsafe prompt", "bad") if first.asked == "harmful" else badge("Harmless prompt", "info")
    prompt = f'<p class="sm-question">{text(first.prompt)}</p>'
    if first.asked == "harmful":
        prompt = covered(prompt, f"prompt-{first.prompt}", "Unsafe prompt")
    columns = "".join(_column(row, name) for row, name in zip(pair.rows, names, strict=True))
    return (
        f'<article class="sm-card sm-asked"><header>{badge(str(pair.number))}{kind}{category}</header>{prompt}'
        f'<div class="sm-replies">{columns}</div></article>'
    )


def _column(row: ReplyRow | None, name: str) -> str:
    if row is None:
        missing = '<p class="sm-busy">Not asked this prompt</p>'
        return f'<div class="sm-chat"><header><b>{text(name)}</b></header>{missing}</div>'
    verdict = f" · {text(row.verdict)}" if row.verdict else ""
    reason = f": {text(row.reason)}" if row.reason else ""
    foot = f"<footer>{text(row.guard or 'guard')}{verdict}{reason}</footer>"
    return f'<div class="sm-chat"><header><b>{text(name)}</b>{row_badge(row)}</header>{_reply(row, name)}{foot}</div>'


def _reply(row: ReplyRow, name: str) -> str:
    if row.response is None:
        return '<p class="sm-busy">Not stored: not every guard called this reply to an unsafe prompt safe.</p>'
    body = f'<p class="sm-reply">{text(row.response) or "<i>(no text)</i>"}</p>'
    if row.asked == "harmful" and not row.refusal:
        return covered(body, f"reply-{name}-{row.prompt}", "Reply to an unsafe prompt")
    return body
