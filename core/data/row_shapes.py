"""Rows of widely used layouts, turned into plain columns: chat messages, ShareGPT conversations, Alpaca instructions.

- `messages`: [{role, content}, ...]; `conversations`: [{from, value}, ...] (ShareGPT). One user turn, with at most one
  answer. A system message is left out: a merge is asked without one.
- `instruction`, `input`, `output` (Alpaca): an input that is not empty follows the instruction on a line of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.data.tables import Row
from core.errors import DataError

_ROLES = {"user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant"}
_TURNS_HINT = "Keep conversations of one question and one answer."


def plain_row(row: Row) -> Row:
    """The row with `question` and `answer` in place of messages or an instruction; other rows as they are.

    Raises:
        DataError: a conversation has more than one question, none, or turns that cannot be read.
    """
    cells = {str(name).casefold(): value for name, value in row.cells.items()}
    for key in ("messages", "conversations", "conversation"):
        if isinstance(cells.get(key), list) and "question" not in cells and "prompt" not in cells:
            return row._replace(cells={**_others(row.cells, key), **_turns(row.place, cells[key])})
    if isinstance(cells.get("instruction"), str) and {"input", "output"} & cells.keys():
        return row._replace(cells={**_others(row.cells, "instruction", "input", "output"), **_alpaca(cells)})
    return row


def _others(cells: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in cells.items() if str(name).casefold() not in names}


def _turns(place: str, turns: list[Any]) -> dict[str, Any]:
    asked: list[str] = []
    answered: list[str] = []
    for turn in turns:
        role, text = _turn(place, turn)
        if role == "user":
            asked.append(text)
        elif role == "assistant":
            answered.append(text)
    if len(asked) != 1 or len(answered) > 1:
        raise DataError(
            f"{place} has {len(asked)} user turns and {len(answered)} answers.", _TURNS_HINT, code="row-turns"
        )
    return {"question": asked[0]} | ({"answer": answered[0]} if answered else {})


def _turn(place: str, turn: Any) -> tuple[str, str]:
    """Role (`user`, `assistant` or `system`) and text of a turn."""
    if not isinstance(turn, Mapping):
        raise DataError(f"{place} holds a turn that is a {type(turn).__name__}.", _TURNS_HINT, code="row-turns")
    role = str(turn.get("role", turn.get("from", "")))
    text = turn.get("content", turn.get("value"))
    known = _ROLES.get(role.casefold(), "system" if role.casefold() == "system" else None)
    if known is None or not isinstance(text, str):
        raise DataError(f"{place} has a turn of '{role}' that is not text.", _TURNS_HINT, code="row-turns")
    return known, text


def _alpaca(cells: Mapping[str, Any]) -> dict[str, Any]:
    more = cells.get("input")
    question = f"{cells['instruction']}\n{more}" if isinstance(more, str) and more.strip() else cells["instruction"]
    return {"question": question} | ({"answer": cells["output"]} if "output" in cells else {})
