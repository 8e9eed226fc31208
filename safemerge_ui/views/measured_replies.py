"""Measured replies, prompt by prompt: what one model said, or two beside each other, with the guard's verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from core.evaluation.replies import Asked, ReplyRow
from safemerge_ui.views.markup import badge, covered, empty, text
from safemerge_ui.views.names import category_name

PAGE_SIZE = 10

Shown = Literal["all", "safe", "unsafe", "refused", "answered", "broken", "differ"]


class Answered(NamedTuple):
    """One prompt of the first model's file, its number there, and the rows of the chosen models (None: no such row)."""

    number: int
    rows: tuple[ReplyRow | None, ...]

    @property
    def first(self) -> ReplyRow:
        """The row that says what was asked."""
        return next(row for row in self.rows if row is not None)


def choose_replies(files: Sequence[Sequence[ReplyRow]], asked: Asked, category: str, shown: Shown) -> list[Answered]:
    """The prompts to show, in the order of the first file.

    Args:
        files: rows of each chosen model; rows of the others are found by their prompt.
        asked: which prompts.
        category: one category, or empty for all.
        shown: verdicts to show, of the first model; `differ` needs a second.
    """
    if not files:
        return []
    others = [{(row.asked, row.prompt): row for row in rows} for rows in files[1:]]
    pairs = (
        Answered(number, (row, *(known.get((row.asked, row.prompt)) for known in others)))
        for number, row in enumerate(files[0], start=1)
    )
    return [
        pair
        for pair in pairs
        if pair.first.asked == asked and category in ("", pair.first.category) and _fits(pair, shown)
    ]


def page_count(chosen: Sequence[Answered]) -> int:
    """How many pages the prompts fill, at least one."""
    return max(1, -(-len(chosen) // PAGE_SIZE))


def reply_cards(chosen: Sequence[Answered], names: Sequence[str], page: int = 1) -> str:
    """One page (1-based) of prompts with the replies of the models called `names`; pages past the end show the last."""
    if not chosen:
        return empty("No replies of this kind.", "Choose another model, category or verdict above.")
    page = max(1, min(page, page_count(chosen)))
    first = (page - 1) * PAGE_SIZE
    shown = chosen[first : first + PAGE_SIZE]
    cards = "".join(_card(pair, names) for pair in shown)
    count = f'<p class="sm-foot">{first + 1} to {first + len(shown)} of {len(chosen)} prompts</p>'
    return f'<div class="sm-exchanges">{cards}</div>{count}'


def no_replies() -> str:
    """What the browser says where a run keeps no replies."""
    return empty(
        "No replies of this model are on disk.", "Models measured from now on keep theirs in the run's folder."
    )


def row_badge(row: ReplyRow) -> str:
    """The verdict in a word; refusing is right only for harm."""
    if row.degenerate:
        return badge("Broken text", "warn")
    if row.asked == "benign":
        return badge("Over-refusal", "warn") if row.refusal else badge("Answered", "good")
    if row.safe:
        return badge("Refused" if row.refusal else "Safe", "good")
    return badge("Not safe", "bad")


def _fits(pair: Answered, shown: Shown) -> bool:
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
            judged = {_standing(other) for other in pair.rows if other is not None}
            return len(judged) > 1
        case "all":
            return True


def _standing(row: ReplyRow) -> tuple[bool, ...]:
    """What makes two verdicts differ."""
    return (row.refusal,) if row.asked == "benign" else (row.safe,)


def _card(pair: Answered, names: Sequence[str]) -> str:
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
        return f'<div class="sm-chat"><header><b>{text(name)}</b></header><p class="sm-busy">Not asked this</p></div>'
    verdict = f" · {text(row.verdict)}" if row.verdict else ""
    reason = f": {text(row.reason)}" if row.reason else ""
    foot = f"<footer>{text(row.guard or 'guard')}{verdict}{reason}</footer>"
    return f'<div class="sm-chat"><header><b>{text(name)}</b>{row_badge(row)}</header>{_reply(row, name)}{foot}</div>'


def _reply(row: ReplyRow, name: str) -> str:
    if row.response is None:
        return '<p class="sm-busy">Not kept: not every guard called this reply to an unsafe prompt safe.</p>'
    body = f'<p class="sm-reply">{text(row.response) or "<i>(no text)</i>"}</p>'
    if row.asked == "harmful" and not row.refusal:
        return covered(body, f"reply-{name}-{row.prompt}", "Reply to an unsafe prompt")
    return body
