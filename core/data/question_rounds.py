"""Writes questions in rounds, for safety and domain pairs: requests, counts, and an error when too few pairs result.

Each request is one conversation for one question. The size of a round follows from the number of missing pairs, so that
a model works in batches without writing many more questions than needed.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from core.contracts.events import Progress, SampleSeen
from core.data.overlap import PromptScreen
from core.data.parsing import parse_question
from core.data.training_pairs import Dataset, DropReason
from core.errors import DataError, RunCancelled
from core.models.chat_format import Conversation

BATCH = 72
"""Maximum number of questions in one round."""
QUESTION_TOKENS = 64
"""Maximum number of tokens of one question with its JSON."""
ATTEMPTS_PER_PAIR = 6
"""Maximum number of questions written per requested pair."""

_TEMPERATURE = 1.0
_LOWEST_YIELD = 0.25
_FRUITLESS_ROUNDS = 3
_SHOWN_CHARACTERS = 120
_SCREENED_OUT = (DropReason.NOT_JSON, DropReason.DUPLICATE, DropReason.NEAR_DUPLICATE, DropReason.HELD_OUT)
_REPEATS = "It repeats itself: use a larger question writer, or a smaller k."
_HINTS = {
    DropReason.NOT_JSON: "Its output was not JSON with a question: use an instruction-tuned, uncensored model that "
    "follows a format.",
    DropReason.DUPLICATE: _REPEATS,
    DropReason.NEAR_DUPLICATE: _REPEATS,
    DropReason.EXAMPLE: _REPEATS,
    DropReason.HELD_OUT: "Its questions are prompts on which the merge is measured: measure on other prompts.",
    DropReason.NOBODY_REFUSES: "No model of the pool refuses the questions: add an aligned model to the pool, or set "
    "data.safety.fallback_refusals.",
    DropReason.BROKEN_ANSWER: "Its answers are broken text: check the model and its chat template.",
}


class TextModel(Protocol):
    """A model that answers conversations."""

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """One reply per conversation, in order; temperature 0 is greedy and needs no seed."""
        ...


class Draft(NamedTuple):
    """The result of one request: a new question (`reason` is None), or the reason why it was dropped.

    Attributes:
        text: the question, or the start of the reply where it contains no question.
        reason: why the question is dropped.
        seed: of the round.
        prompt_sha256: hash of the request (`hash_request`).
    """

    text: str
    reason: DropReason | None
    seed: int
    prompt_sha256: str


def write_drafts(
    model: TextModel, conversations: Sequence[Conversation], screen: PromptScreen, *, seed: int
) -> list[Draft]:
    """Sample one question per conversation, and check each with `screen`."""
    replies = model.reply(conversations, max_new_tokens=QUESTION_TOKENS, temperature=_TEMPERATURE, seed=seed)
    questions = [parse_question(reply) for reply in replies]
    reasons = iter(screen.screen([question for question in questions if question is not None]))
    drafts = []
    for conversation, reply, question in zip(conversations, replies, questions, strict=True):
        shown = " ".join(reply.split())[:_SHOWN_CHARACTERS] if question is None else question
        reason = DropReason.NOT_JSON if question is None else next(reasons)
        drafts.append(Draft(shown, reason, seed, hash_request(conversation)))
    return drafts


def answer_greedily(model: TextModel, questions: Sequence[str], max_new_tokens: int) -> list[str]:
    """A model's greedy reply to each question, without a system prompt."""
    conversations: list[Conversation] = [[{"role": "user", "content": question}] for question in questions]
    replies = model.reply(conversations, max_new_tokens=max_new_tokens, temperature=0.0, seed=0)
    return [reply.strip() for reply in replies]


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**31) that depends on every part and is the same on every machine."""
    return random.Random("/".join(map(str, parts))).randrange(2**31)


def hash_request(conversation: Conversation) -> str:
    """First 16 digits of the sha256 of a request, which identify it in the rows."""
    return hashlib.sha256(json.dumps(conversation, ensure_ascii=False).encode()).hexdigest()[:16]


def check_stop(should_stop: Callable[[], bool]) -> None:
    """Raise `RunCancelled` when a stop was requested."""
    if should_stop():
        raise RunCancelled


@dataclass
class Tally:
    """Counts of the questions written so far.

    Attributes:
        k: requested number of pairs.
        asked: category -> number of written questions.
        kept: category -> number of kept pairs.
        dropped: reason -> number of dropped questions.
        fruitless: number of questions since the last kept pair.
    """

    k: int
    asked: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    fruitless: int = 0

    def count(self, event: SampleSeen) -> SampleSeen:
        """Count a row and return it."""
        self.asked[event.category] += 1
        self.fruitless = 0 if event.kept else self.fruitless + 1
        if event.kept:
            self.kept[event.category] += 1
        else:
            self.dropped[event.reason] += 1
        return event

    def round_size(self, batch: int) -> int:
        """Number of questions in the next round, at most `batch`; 0 with enough pairs or without prospect of more.

        It is slightly more than the expected yield requires, because another round costs more than a few questions.
        """
        seen, missing = self.asked.total(), self.k - self.kept.total()
        if missing <= 0 or self.fruitless >= _FRUITLESS_ROUNDS * batch:
            return 0
        needed = missing / self.expected_yield()
        return max(0, min(batch, math.ceil(needed + math.sqrt(needed) / 2), ATTEMPTS_PER_PAIR * self.k - seen))

    def expected_yield(self) -> float:
        """Expected share of questions that become pairs, from the counts; optimistic at first and at least 1/4."""
        useful = self.kept.total() + self.dropped[DropReason.NOT_NEEDED]
        return max(_LOWEST_YIELD, (useful + 1) / (self.asked.total() + 1))


def replay_round(rows: Sequence[SampleSeen], screen: PromptScreen, tally: Tally) -> Sequence[SampleSeen]:
    """Count the rows of an earlier round, mark its questions as seen in `screen`, and return the rows."""
    screen.screen([row.question for row in rows if row.reason not in _SCREENED_OUT])
    for row in rows:
        tally.count(row)
    return rows


def pairs_progress(dataset: Dataset, done: int, k: int) -> Progress:
    """Progress in pairs."""
    return Progress(phase="data", done=done, total=k, message=f"{dataset} pairs")


def check_enough(dataset: Dataset, writer: str, tally: Tally) -> None:
    """Raise an error when far fewer pairs than requested were made.

    Args:
        dataset: the training set.
        writer: who wrote the questions, for the message.
        tally: counts of the questions.

    Raises:
        DataError: fewer than k/8 pairs (and fewer than 4) were kept; the message counts the reasons, and the hint
            addresses the most frequent one.
    """
    kept = tally.kept.total()
    if kept >= min(tally.k, max(4, tally.k // 8)):
        return
    hints: Counter[str] = Counter()
    for reason, count in tally.dropped.items():
        hints[_HINTS.get(DropReason(reason), "")] += count
    counts = ", ".join(f"{reason}: {count}" for reason, count in tally.dropped.most_common())
    main = hints.most_common(1)[0][0] if hints else ""
    raise DataError(
        f"Only {kept} of {tally.k} {dataset} pairs were made from {tally.asked.total()} questions of {writer} "
        f"({counts}).",
        f"{main} Or give data.{dataset} a file.".strip(),
        code="too-few-pairs",
    )
