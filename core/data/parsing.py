"""A question out of a generator's reply, which is meant to be `[{"Question": "..."}]` and seldom is exactly that.

Small and uncensored models forget brackets, add code fences and explain themselves; `json_repair` mends the JSON, and
what comes out must still read as a question or a request.
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

    A list, a single object, any case of the key `Question`, code fences, text around and missing brackets are
    accepted; of several questions the first counts.

    Args:
        reply: generated text.

    Returns:
        The question on one line, of `MIN_CHARACTERS` to `MAX_CHARACTERS`; None when the reply holds no JSON object
        with a question, or its value is not one (a placeholder, a single word, no letters).
    """
    text = reply[:_SCANNED_CHARACTERS]
    start = _OBJECT_WITH_QUESTION.search(text)
    if start is None:
        return None
    try:
        value = _find_question(json_repair.loads(text[start.start() :]), _NESTING)
    except (RecursionError, ValueError):  # nested too deeply for either JSON reader
        return None
    question = " ".join(value.split()) if isinstance(value, str) else ""
    return question if _reads_as_question(question) else None


def _find_question(value: Any, depth: int) -> Any:
    """The value of the first key `Question` in nested lists and objects; None when there is none."""
    if depth == 0 or not isinstance(value, list | dict):
        return None
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key).strip().casefold() == "question":
                return inner
    inners = value.values() if isinstance(value, dict) else value
    found = (_find_question(inner, depth - 1) for inner in inners)
    return next((question for question in found if question is not None), None)


def _reads_as_question(text: str) -> bool:
    """At least two words (or any script that does not space its words), and nothing left of a template."""
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS or _PLACEHOLDER.search(text):
        return False
    letters = sum(map(str.isalpha, text))
    return letters >= MIN_CHARACTERS and (" " in text or not text.isascii())
