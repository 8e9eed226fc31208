"""Multiple-choice questions asked directly: the live probe of a search, without lm-eval's start-up.

A question counts as right when its answer has the highest log-likelihood of its choices, in the chat template: what
lm-eval's `acc` counts on the demo tasks, so that the two agree on the same questions.
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
    """Read questions, one JSON object a line: `question`, `choices` and `answer`, the place of the right choice.

    Raises:
        DataError: the file is missing or empty, or a line is not such a question.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The questions in {path} cannot be read: {error}.", "Check the path.") from error
    questions = [_question(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise DataError(f"{path} holds no questions.", "Give one JSON object a line.")
    return questions


def _question(line: str, place: str) -> Question:
    try:
        row = json.loads(line)
        question = Question(str(row["question"]), tuple(map(str, row["choices"])), int(row["answer"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place} is not a question: {error!r}.", "Each line needs question, choices and answer."
        ) from error
    if len(question.choices) < 2 or not 0 <= question.answer < len(question.choices):
        raise DataError(
            f"{place}: answer {question.answer} is not the place of one of {len(question.choices)} choices.",
            "Count the choices from 0 and give two or more.",
        )
    return question


def measure_probe(model: Any, tokenizer: Any, questions: Sequence[Question]) -> Rate:
    """Share of questions whose right choice the model finds likeliest.

    Args:
        model: a loaded causal language model that takes attention masks of any form (`shares_prefixes`).
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
    """Each choice after the question's prompt, without an end of turn, as lm-eval scores it."""
    from core.models.chat_format import EncodedPair, encode_prompt

    prompt = encode_prompt(tokenizer, [{"role": "user", "content": question.question}])
    choices = [tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in question.choices]
    return [EncodedPair([*prompt, *choice], len(prompt)) for choice in choices]
