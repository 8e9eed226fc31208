"""A multiple-choice question, as probe files hold it and accuracy is measured on it."""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """A multiple-choice question; `choices[answer]` is right."""

    question: str
    choices: tuple[str, ...]
    answer: int
