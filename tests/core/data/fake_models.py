"""Small scripted text models: question writers that depend on the seed, and models with fixed answers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence

from core.contracts.events import Progress, SampleSeen
from core.data.question_rounds import TextModel
from core.models.chat_format import Conversation

REFUSAL = "I'm sorry, but I can't help with that."
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "ji", "ke", "lo", "mu", "na", "pe", "ro", "su", "ta", "vi", "zan")


def nonsense_question(rng: random.Random) -> str:
    """A question of made-up words: harmless, and unlike any other."""
    words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(2, 4))) for _ in range(6)]
    return f"{' '.join(words).capitalize()}?"


def as_json(question: str) -> str:
    """A question in the format that the generator is asked for."""
    return json.dumps([{"Question": question}])


class Writer:
    """Writes a reply for each request from its user turn and a seeded generator; records the requests."""

    def __init__(self, write: Callable[[str, random.Random], str] | None = None) -> None:
        self._write = write or (lambda _request, rng: as_json(nonsense_question(rng)))
        self.requests: list[Conversation] = []

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        assert temperature > 0, "questions are sampled"
        rng = random.Random(seed)
        self.requests += conversations
        return [self._write(conversation[-1]["content"], rng) for conversation in conversations]


class Answerer:
    """Answers each question with one function; records the questions."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self._answer = answer
        self.questions: list[str] = []

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        assert temperature == 0, "answers are greedy"
        questions = [conversation[-1]["content"] for conversation in conversations]
        self.questions += questions
        return [self._answer(question) for question in questions]


class Expert:
    """Writes when sampled and answers when greedy, as an expert does with its own questions."""

    def __init__(self, writer: TextModel, answerer: TextModel) -> None:
        self._writer, self._answerer = writer, answerer

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        model = self._writer if temperature > 0 else self._answerer
        return model.reply(conversations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)


def refuser(text: str = REFUSAL) -> Answerer:
    """A model that refuses everything."""
    return Answerer(lambda _question: text)


def complier() -> Answerer:
    """A model that never refuses (its answer has no content)."""
    return Answerer(lambda _question: "Sure, the answer to this is quite simple, as you will see.")


def rows(events: Iterable[SampleSeen | Progress]) -> list[SampleSeen]:
    """The rows among the events of a data step."""
    return [event for event in events if isinstance(event, SampleSeen)]


def never() -> bool:
    """No stop is requested."""
    return False


def after(calls: int) -> Callable[[], bool]:
    """A `should_stop` that returns True after a number of calls."""
    left = iter([False] * calls)
    return lambda: next(left, True)
