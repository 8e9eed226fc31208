"""Question writing, as the safety and the domain step share it: asking in rounds, tallying, and giving up with advice.

Each request is one conversation for one question. A round is sized to what is still missing, so that a model is asked
in batches without writing many more questions than needed.
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
"""Most questions written in one round."""
QUESTION_TOKENS = 64
"""Most tokens of one written question with its JSON."""
ATTEMPTS_PER_PAIR = 6
"""Questions written at most, per pair wanted."""

_TEMPERATURE = 1.0
_LOWEST_YIELD = 0.25
_FRUITLESS_ROUNDS = 3
_SHOWN_CHARACTERS = 120
_SCREENED_OUT = (DropReason.NOT_JSON, DropReason.DUPLICATE, DropReason.NEAR_DUPLICATE, DropReason.HELD_OUT)
_REPEATS = "It repeats itself: take a larger question writer, or a smaller k."
_ADVICE = {
    DropReason.NOT_JSON: "Its output was not JSON with a question: take an instruction-tuned, uncensored model that "
    "keeps to a format.",
    DropReason.DUPLICATE: _REPEATS,
    DropReason.NEAR_DUPLICATE: _REPEATS,
    DropReason.EXAMPLE: _REPEATS,
    DropReason.HELD_OUT: "Its questions are those the merge is measured on: measure on other prompts.",
    DropReason.NOBODY_REFUSES: "The questions are there, but no model of the pool refuses them: put an aligned model "
    "into the pool, or set data.safety.fallback_refusals.",
    DropReason.BROKEN_ANSWER: "Its answers are broken text: check the model and its chat template.",
}


class TextModel(Protocol):
    """Anything that answers conversations."""

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """One reply per conversation, in order; temperature 0 is greedy and needs no seed."""
        ...


class Draft(NamedTuple):
    """What came of one request: a new question (`reason` is None), or why there is none.

    Attributes:
        seed: seed of the round.
        prompt_sha256: which request it was (`hash_request`).
    """

    text: str
    reason: DropReason | None
    seed: int
    prompt_sha256: str


def write_drafts(
    model: TextModel, conversations: Sequence[Conversation], screen: PromptScreen, *, seed: int
) -> list[Draft]:
    """Have one question written per conversation, by sampling, and pass each through `screen`.

    Where a reply holds no question, the draft shows the beginning of the reply.
    """
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
    """A model's own greedy reply to each question, without a system prompt."""
    conversations: list[Conversation] = [[{"role": "user", "content": question}] for question in questions]
    replies = model.reply(conversations, max_new_tokens=max_new_tokens, temperature=0.0, seed=0)
    return [reply.strip() for reply in replies]


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**31) that depends on every part and is the same on every machine."""
    return random.Random("/".join(map(str, parts))).randrange(2**31)


def hash_request(conversation: Conversation) -> str:
    """First 16 digits of the sha256 of a request, by which a row says what its question came of."""
    return hashlib.sha256(json.dumps(conversation, ensure_ascii=False).encode()).hexdigest()[:16]


def check_stop(should_stop: Callable[[], bool]) -> None:
    """Raise `RunCancelled` when a stop was asked for."""
    if should_stop():
        raise RunCancelled


@dataclass
class Tally:
    """What became of the questions asked for so far.

    Attributes:
        k: pairs wanted.
        asked: category -> questions that came back.
        kept: category -> pairs kept.
        dropped: reason -> questions dropped.
        fruitless: questions since the last pair that was kept.
    """

    k: int
    asked: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    fruitless: int = 0

    def note(self, event: SampleSeen) -> SampleSeen:
        """Count a row and hand it on."""
        self.asked[event.category] += 1
        self.fruitless = 0 if event.kept else self.fruitless + 1
        if event.kept:
            self.kept[event.category] += 1
        else:
            self.dropped[event.reason] += 1
        return event

    def round_size(self, batch: int) -> int:
        """Questions to ask for next, at most `batch`; 0 when there are enough pairs or no use in asking on.

        A few more than the yield asks for, as it varies: another round costs more than they do.
        """
        seen, missing = self.asked.total(), self.k - self.kept.total()
        if missing <= 0 or self.fruitless >= _FRUITLESS_ROUNDS * batch:
            return 0
        needed = missing / self.expected_yield()
        return max(0, min(batch, math.ceil(needed + math.sqrt(needed) / 2), ATTEMPTS_PER_PAIR * self.k - seen))

    def expected_yield(self) -> float:
        """Share of questions that become pairs, from what was seen; optimistic at first and never below 1/4."""
        useful = self.kept.total() + self.dropped[DropReason.NOT_NEEDED]
        return max(_LOWEST_YIELD, (useful + 1) / (self.asked.total() + 1))


def recall_round(rows: Sequence[SampleSeen], screen: PromptScreen, tally: Tally) -> Sequence[SampleSeen]:
    """Take a round of earlier as done: its questions are tallied, and seen by `screen`; hands the rows on."""
    screen.screen([row.question for row in rows if row.reason not in _SCREENED_OUT])
    for row in rows:
        tally.note(row)
    return rows


def pairs_made(dataset: Dataset, done: int, k: int) -> Progress:
    """How many pairs there are, of those wanted."""
    return Progress(phase="data", done=done, total=k, message=f"{dataset} pairs")


def check_enough(dataset: Dataset, writer: str, tally: Tally) -> None:
    """Accept fewer pairs than wanted, but not next to none.

    Args:
        writer: who wrote the questions, as a person would say it.

    Raises:
        DataError: fewer than k/8 pairs (and fewer than 4) were kept; it counts the reasons and advises on the main one.
    """
    kept = tally.kept.total()
    if kept >= min(tally.k, max(4, tally.k // 8)):
        return
    advice: Counter[str] = Counter()
    for reason, count in tally.dropped.items():
        advice[_ADVICE.get(DropReason(reason), "")] += count
    counts = ", ".join(f"{reason}: {count}" for reason, count in tally.dropped.most_common())
    main = advice.most_common(1)[0][0] if advice else ""
    raise DataError(
        f"Only {kept} of {tally.k} {dataset} pairs came of {tally.asked.total()} questions that {writer} was asked "
        f"for ({counts}).",
        f"{main} Or give data.{dataset} a file.".strip(),
    )
