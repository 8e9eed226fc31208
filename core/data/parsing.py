"""Parses the question in a generator's reply, which should be `[{"Question": "..."}]` but often is malformed.

Small and uncensored models omit brackets, add code fences and explain themselves. `json_repair` repairs the JSON, and
the result must look like a question or a request.
"""

from __future__ import annotations

import re
from typing import Any

import json_repair

MIN_CHARACTERS = 3
MAX_CHARACTERS = 400

_SCANNED_CHARACTERS = 4000
_NESTING = 4
_OBJECT_WITH_QUESTION = re.compile(r"\{[^{}]{0,400}?\bquestion\b", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\.\.\.$|…$|[{}<>\[\]]|^(your|the|a|an|my|insert|example) question\b", re.IGNORECASE)


def parse_question(reply: str) -> str | None:
    """The question in a generator's reply, or None when there is none.

    A list, a single object, any case of the key `Question`, code fences, surrounding text and missing brackets are
    accepted; of several questions the first is used.

    Args:
        reply: generated text.

    Returns:
        The question on one line, with `MIN_CHARACTERS` to `MAX_CHARACTERS`; None when the reply contains no JSON object
        with a question, or its value is no question (a placeholder, a single word, no letters).
    """
    text = reply[:_SCANNED_CHARACTERS]
    start = _OBJECT_WITH_QUESTION.search(text)
    if start is None:
        return None
    try:
        value = _find_question(json_repair.loads(text[start.start() :]), _NESTING)
    except (RecursionError, ValueError):  # nested too deeply for the JSON parsers
        return None
    question = " ".join(value.split()) if isinstance(value, str) else ""
    return question if _looks_like_question(question) else None


def _find_question(value: Any, depth: int) -> Any:
    """The value of the first key `Question` in nested lists and objects; None when there is none."""
    if depth == 0 or not isinstance(value, list | dict):
        return None
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key).strip().casefold() == "question":
                return inner
    inners = value.values() if isinstance(value, dict) else value
    questions = (_find_question(inner, depth - 1) for inner in inners)
    return next((question for question in questions if question is not None), None)


def _looks_like_question(text: str) -> bool:
    """Whether a text has at least two words (or is in a script without spaces) and is no placeholder."""
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS or _PLACEHOLDER.search(text):
        return False
    letters = sum(map(str.isalpha, text))
    return letters >= MIN_CHARACTERS and (" " in text or not text.isascii())
