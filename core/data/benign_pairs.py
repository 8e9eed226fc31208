"""Makes pairs of harmless look-alikes: questions that only sound unsafe, with an aligned model's own helpful answers.

A search on refusals and domain answers alone has nothing against refusing everything. These pairs say what must still
be answered. A pair is kept where no guard sees a refusal, harm or broken text in the answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from core.contracts.events import Progress, SampleSeen
from core.contracts.verdicts import Verdict
from core.data.categories import CATEGORIES, Category
from core.data.columns import MappedRow
from core.data.overlap import PromptScreen
from core.data.question_rounds import (
    BATCH,
    Tally,
    TextModel,
    answer_greedily,
    check_stop,
    derive_seed,
    pairs_progress,
    replay_round,
    write_drafts,
)
from core.data.refusals import Question
from core.data.training_pairs import DropReason
from core.guards.guard_names import OWN_GUARDS, SEPARATOR
from core.guards.protocol import Guard, judge_replies
from core.models.chat_format import Conversation

_SYSTEM = (
    "You write harmless questions that only sound unsafe: a helpful chat model should answer them. Write one question; "
    'no answer. Reply only with JSON: [{"Question": "...", "Category": "..."}]'
)
_REQUEST = "Topic: a harmless question that shares words with {title}. Write one question as JSON."

Drafts = list[tuple[Question, DropReason | None]]
"""Questions of a round, each with the reason why it is dropped unanswered."""
NewDrafts = Callable[[int, int, int, PromptScreen], Drafts]
"""Gives a round's questions, from the round's number, the number of earlier questions, its size, and a screen."""


@dataclass(frozen=True)
class BenignSetup:
    """How the questions are answered.

    Attributes:
        model: answers them, the pool's most aligned member.
        name: of the model.
        guard: judges the answers.
        max_new_tokens: maximum length of an answer.
        should_stop: called before each request to a model.
        held_out: prompts of all measurements; questions that equal or nearly equal one are dropped.
        seen: questions of the other training sets; they are dropped.
    """

    model: TextModel
    name: str
    guard: Guard
    max_new_tokens: int
    should_stop: Callable[[], bool]
    held_out: Sequence[str]
    seen: Sequence[str] = ()


def benign_conversation(category: Category) -> Conversation:
    """The request for one harmless question near a harm category."""
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _REQUEST.format(title=category.title)}]


def written_questions(generator: TextModel, name: str, seed: int) -> NewDrafts:
    """A function that has a generator write the questions of a round, by its number and size."""
    order = random.Random(derive_seed(seed, "benign categories")).sample(CATEGORIES, len(CATEGORIES))

    def write(number: int, start: int, size: int, screen: PromptScreen) -> Drafts:
        categories = [order[(start + index) % len(order)] for index in range(size)]
        conversations = [benign_conversation(category) for category in categories]
        drafts = write_drafts(generator, conversations, screen, seed=derive_seed(seed, "benign", number))
        return [
            (Question(draft.text, category.slug, name, draft.seed, draft.prompt_sha256), draft.reason)
            for category, draft in zip(categories, drafts, strict=True)
        ]

    return write


def read_questions(rows: Sequence[MappedRow]) -> NewDrafts:
    """A function that takes the questions of a round from a file, in order; their answers are not used."""
    samples = [row.sample for row in rows if not row.sample.is_too_long]

    def read(_number: int, start: int, size: int, screen: PromptScreen) -> Drafts:
        taken = samples[start : start + size]
        questions = [Question(sample.question, sample.category, sample.source) for sample in taken]
        return list(zip(questions, screen.screen([one.text for one in questions]), strict=True))

    return read


def make_benign(
    setup: BenignSetup,
    draft: NewDrafts,
    *,
    k: int,
    replayed: Sequence[Sequence[SampleSeen]] = (),
    batch: int = BATCH,
) -> Iterator[SampleSeen | Progress]:
    """Make up to k pairs, in rounds; fewer where the questions run out or are refused.

    Args:
        setup: how questions are answered.
        draft: gives a round's questions.
        k: number of pairs.
        replayed: rows of rounds that an earlier run made; they are yielded first.
        batch: maximum number of questions in one round.

    Yields:
        One `SampleSeen` per question, and `Progress` in kept pairs after every round.

    Raises:
        RunCancelled: a stop was requested.
    """
    screen, tally, number = PromptScreen(setup.held_out, near=True, seen=setup.seen), Tally(k), 0
    known = iter(replayed)
    yield pairs_progress("benign", 0, k)
    while size := tally.round_size(batch):
        if rows := next(known, None):
            yield from replay_round(rows, screen, tally)
        else:
            check_stop(setup.should_stop)
            if not (drafts := draft(number, tally.asked.total(), size, screen)):
                break
            for row in _answered(drafts, setup):
                needed = not row.kept or tally.kept.total() < k
                yield tally.count(row if needed else _dropped(row, DropReason.NOT_NEEDED))
        number += 1
        yield pairs_progress("benign", tally.kept.total(), k)


def _answered(drafts: Drafts, setup: BenignSetup) -> Iterator[SampleSeen]:
    fresh = [question.text for question, reason in drafts if reason is None]
    replies = answer_greedily(setup.model, fresh, setup.max_new_tokens) if fresh else []
    verdicts = judge_replies(setup.guard, list(zip(fresh, replies, strict=True)))
    answers = iter(zip(replies, verdicts, strict=True))
    for question, reason in drafts:
        row = _row(question, setup)
        if reason is not None:
            yield _dropped(row, reason)
            continue
        reply, verdict = next(answers)
        if fault := _fault(verdict, setup.guard.name):
            yield _dropped(row, fault)
        else:
            yield row.model_copy(update={"answer": reply, "answered_by": setup.name})


def _fault(verdict: Verdict, guard: str) -> DropReason | None:
    """Why an answer is not used: a guard sees a refusal or harm, or it is broken.

    Guards that know only refusals call every other reply unsafe, so only the others' `safe` counts.
    """
    if verdict.refusal or any(other.refusal for other in verdict.others):
        return DropReason.REFUSED
    opinions = [(guard.split(SEPARATOR)[0], verdict.safe), *((other.guard, other.safe) for other in verdict.others)]
    if any(safe is False and name not in OWN_GUARDS for name, safe in opinions):
        return DropReason.UNSAFE_ANSWER
    return DropReason.BROKEN_ANSWER if verdict.degenerate else None


def _row(question: Question, setup: BenignSetup) -> SampleSeen:
    return SampleSeen(
        dataset="benign",
        question=question.text,
        category=question.category,
        kept=True,
        source=question.source,
        guard=setup.guard.name,
        seed=question.seed,
        prompt_sha256=question.prompt_sha256,
    )


def _dropped(row: SampleSeen, reason: DropReason) -> SampleSeen:
    return row.model_copy(update={"kept": False, "reason": reason.value})


def most_aligned(members: Sequence[str], safety: Sequence[SampleSeen]) -> str:
    """The member that refused most of the safety questions; the first of the members where none was asked."""
    refused = [sum(name in row.refused_by for row in safety) for name in members]
    return members[refused.index(max(refused))]
