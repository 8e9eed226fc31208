"""Measures accuracy on multiple-choice questions without lm-eval's start-up time: the live probe of a search.

An answer is right when the correct choice has the highest log-likelihood in the chat template. This is lm-eval's `acc`
on the demo tasks, so that both give the same result for the same questions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.contracts.questions import Question
from core.contracts.results import Rate
from core.errors import DataError
from core.evaluation.statistics import wilson

if TYPE_CHECKING:
    from core.models.chat_format import EncodedPair


def read_probe_questions(path: Path) -> list[Question]:
    """Read questions, one JSON object per line: `question`, `choices` and `answer`, the index of the right choice.

    Raises:
        DataError: the file is missing or empty, or a line is no such question.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"The questions in {path} cannot be read: {error}."
        raise DataError(message, "Check the path.", code="file-unreadable") from error
    questions = [_question(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise DataError(f"{path} has no questions.", "Write one JSON object per line.", code="no-questions")
    return questions


def _question(line: str, place: str) -> Question:
    try:
        row = json.loads(line)
        question = Question(str(row["question"]), tuple(map(str, row["choices"])), int(row["answer"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place} is not a question: {error!r}.",
            "Each line needs question, choices and answer.",
            code="not-a-question",
        ) from error
    if len(question.choices) < 2 or not 0 <= question.answer < len(question.choices):
        raise DataError(
            f"{place}: answer {question.answer} is not the index of one of {len(question.choices)} choices.",
            "Count from 0, and give two or more choices.",
            code="answer-not-a-choice",
        )
    return question


def measure_probe(model: Any, tokenizer: Any, questions: Sequence[Question]) -> Rate:
    """Share of questions whose right choice has the highest likelihood.

    Args:
        model: a loaded causal language model that supports custom attention masks (`shares_prefixes`).
        tokenizer: its tokenizer.
        questions: held-out questions.

    Raises:
        DataError: no questions.
    """
    from core.evaluation.token_tree import score_answers

    pairs = [pair for question in questions for pair in _encode(tokenizer, question)]
    scores = iter(score_answers(model, pairs))
    right = 0
    for question in questions:
        likelihoods = [next(scores).log_likelihood for _ in question.choices]
        right += likelihoods.index(max(likelihoods)) == question.answer
    return wilson(right, len(questions))


def _encode(tokenizer: Any, question: Question) -> list[EncodedPair]:
    """Each choice after the question's prompt, without an end of turn, as in lm-eval."""
    from core.models.chat_format import EncodedPair, encode_prompt

    prompt = encode_prompt(tokenizer, [{"role": "user", "content": question.question}])
    choices = [tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in question.choices]
    return [EncodedPair([*prompt, *choice], len(prompt)) for choice in choices]
