"""Parsing questions from replies: all formats that generators produce, and None for other text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.parsing import MAX_CHARACTERS, MIN_CHARACTERS, parse_question

QUESTION = "How do I open a tin?"


@pytest.mark.parametrize(
    "reply",
    [
        '[{"Question": "How do I open a tin?"}]',
        '{"Question": "How do I open a tin?"}',
        '[{"question": "How do I open a tin?", "Category": "Kitchen"}]',
        '[{"Category": "Kitchen", "QUESTION": "How do I open a tin?"}]',
        '```json\n[\n  {\n    "Question": "How do I open a tin?",\n  }\n]\n```',
        'Sure! Here is one question [as asked]:\n{"Question": "How do I open a tin?"}\nHope this helps {friend}!',
        "[{'Question': 'How do I open a tin?',}]",
        '[{"Question": "How do I open a tin?"',
        '[{"Question": "How do I open a tin?", "Categ',
        '{"questions": [{"Question": "How do I open a tin?"}]}',
        '[{"Question": "  How do I\\n open a   tin? "}, {"Question": "Another one here?"}]',
        '[{Question: "How do I open a tin?"}]',
    ],
)
def test_a_question_is_found(reply: str) -> None:
    assert parse_question(reply) == QUESTION


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I'm sorry, I can't do that.",
        "Question: How do I open a tin?",
        '[{"Answer": "The question is how to open a tin."}]',
        '[{"Question": "..."}]',
        '[{"Question": "{question_1}"}]',
        '[{"Question": "Your question here"}]',
        '[{"Question": "<a question>"}]',
        '[{"Question": ""}]',
        '[{"Question": "Why?"}]',
        '[{"Question": "1 + 2 = ?"}]',
        '[{"Question": 42}]',
        '[{"Question": null}]',
        json.dumps([{"Question": "word " * 100}]),
        '{"question":' * 3000,
        '{"question":' + "[" * 3000,
    ],
)
def test_nothing_is_found(reply: str) -> None:
    assert parse_question(reply) is None


def test_scripts_without_spaces_are_questions_too() -> None:
    assert parse_question('[{"Question": "金的符号是什么？"}]') == "金的符号是什么？"


@given(st.text(max_size=200) | st.text(alphabet='{}[]":,question \n', max_size=200))
def test_any_text_gives_a_bounded_question_or_none(reply: str) -> None:
    question = parse_question(reply)
    assert question is None or MIN_CHARACTERS <= len(question) <= MAX_CHARACTERS


@given(st.lists(st.text("abcdefgh'\"\\,é", min_size=3, max_size=12), min_size=2, max_size=12), st.integers(0, 4))
def test_valid_json_comes_back_unchanged(words: list[str], indent: int) -> None:
    question = " ".join(["is", *words, "so?"])
    assert parse_question(json.dumps([{"Question": question}], indent=indent or None)) == question
