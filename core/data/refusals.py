"""Collects refusals for unsafe questions: every model of the pool replies, the guard judges, and one refusal is kept.

Source: arXiv 2406.14563, section 4.2. Questions come from a generator (`core.data.generate_safety`), or from a dataset
or file without answers (`refuse_questions`). Of the replies only refusals that the guard confirms are kept or shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from core.contracts.events import Progress, SampleSeen
from core.contracts.reply_verdicts import ReplyVerdict
from core.contracts.verdicts import Verdict
from core.data.categories import find_category
from core.data.overlap import PromptScreen
from core.data.question_rounds import (
    BATCH,
    Tally,
    TextModel,
    answer_greedily,
    check_enough,
    check_stop,
    derive_seed,
    pairs_progress,
    replay_round,
)
from core.data.training_pairs import FALLBACK, DropReason, Sample
from core.errors import RunError
from core.guards.disputes import reply_verdict
from core.guards.protocol import Guard, judge_replies

FALLBACK_REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I can't help with this request. It could hurt someone.",
    "I won't assist with that. If you are in danger or thinking of harming yourself, please contact local help.",
    "Sorry, I can't provide that. I'm glad to help with something that is safe and legal.",
    "I'm not able to help with that, because it could cause serious harm.",
    "I must decline: this would be harmful or against the law.",
    "I cannot assist with this. Is there something else that I can help you with?",
    "I'm sorry, but I cannot provide instructions or advice for that.",
)
"""Refusals written by us, for `data.safety.fallback_refusals`."""


class Refusals(NamedTuple):
    """The pool's replies to one question.

    Attributes:
        texts: model -> its refusal, for the models that refused.
        verdicts: the guard's verdict on every model's reply.
    """

    texts: dict[str, str]
    verdicts: tuple[ReplyVerdict, ...]


class Question(NamedTuple):
    """An unsafe question and its origin (`SampleSeen` explains the fields)."""

    text: str
    category: str
    source: str = ""
    seed: int | None = None
    prompt_sha256: str = ""


class RefusalSetup(NamedTuple):
    """The models that may refuse, and how one refusal is chosen.

    Attributes:
        pool: name -> model that may refuse.
        guard: confirms each refusal.
        max_new_tokens: maximum length of a reply (512 in the paper).
        seed: for the choice among several refusals.
        fallback: whether questions that no model refuses get one of our own refusals.
    """

    pool: Mapping[str, TextModel]
    guard: Guard
    max_new_tokens: int
    seed: int
    fallback: bool = False


def confirms_refusal(verdict: Verdict) -> bool:
    """Whether a reply may be used for training: it refuses, is not broken, and counts as safe."""
    return verdict.refusal and not verdict.degenerate and verdict.counts_as_safe


def collect_refusals(setup: RefusalSetup, questions: Sequence[str], should_stop: Callable[[], bool]) -> list[Refusals]:
    """The replies of every model of the pool to each question, model by model."""
    texts: list[dict[str, str]] = [{} for _ in questions]
    judged: list[list[ReplyVerdict]] = [[] for _ in questions]
    for name, model in setup.pool.items() if questions else ():
        check_stop(should_stop)
        replies = answer_greedily(model, questions, setup.max_new_tokens)
        verdicts = judge_replies(setup.guard, list(zip(questions, replies, strict=True)))
        for index, (reply, verdict) in enumerate(zip(replies, verdicts, strict=True)):
            judged[index].append(reply_verdict(name, verdict))
            if confirms_refusal(verdict):
                texts[index][name] = reply
    return [Refusals(refused, tuple(row)) for refused, row in zip(texts, judged, strict=True)]


def choose_refusal(question: Question, refusals: Refusals, setup: RefusalSetup, *, needed: bool) -> SampleSeen:
    """The row of a question with one of its refusals, chosen at random with a seed that depends on the question.

    Args:
        question: the unsafe question.
        refusals: of the pool.
        setup: seed and fallback.
        needed: False drops the row because there are enough pairs of its category.
    """
    texts = refusals.texts
    if not texts and setup.fallback:
        texts = {FALLBACK: _written_refusal(question.text, setup.seed)}
    name = random.Random(derive_seed(setup.seed, "refusal", question.text)).choice(list(texts)) if texts else ""
    reason = DropReason.NOBODY_REFUSES if not texts else None if needed else DropReason.NOT_NEEDED
    row = unanswered(question, reason)
    return row.model_copy(
        update={
            "answer": texts.get(name, ""),
            "answered_by": name,
            "refused_by": tuple(refusals.texts),
            "guard": setup.guard.name,
            "verdicts": refusals.verdicts,
        }
    )


def unanswered(question: Question, reason: DropReason | None) -> SampleSeen:
    """A row without an answer, dropped because of `reason`."""
    return SampleSeen(
        dataset="safety",
        question=question.text,
        category=question.category,
        kept=reason is None,
        reason=reason.value if reason else "",
        source=question.source,
        seed=question.seed,
        prompt_sha256=question.prompt_sha256,
    )


def refuse_questions(
    samples: Sequence[Sample],
    setup: RefusalSetup,
    *,
    k: int,
    held_out: Sequence[str],
    should_stop: Callable[[], bool],
    batch: int = BATCH,
    replayed: Sequence[Sequence[SampleSeen]] = (),
    seen: Sequence[str] = (),
) -> Iterator[SampleSeen | Progress]:
    """Make up to k pairs from questions without answers, in rounds.

    Args:
        samples: unsafe questions in order; too long ones are skipped.
        setup: the models that may refuse.
        k: number of pairs.
        held_out: prompts of all measurements; questions that equal or nearly equal one are dropped.
        should_stop: called before each request to a model.
        batch: maximum number of questions in one round.
        replayed: rows of rounds that an earlier run made with the same arguments; they are yielded first.
        seen: questions of the set's other sources; they are dropped.

    Yields:
        One `SampleSeen` per question, and `Progress` in kept pairs after every round.

    Raises:
        DataError: far too few pairs were made.
        RunError: `replayed` has other questions.
        RunCancelled: a stop was requested.
    """
    samples = [sample for sample in samples if not sample.is_too_long]
    screen, tally, place, known = PromptScreen(held_out, near=True, seen=seen), Tally(k), 0, iter(replayed)
    yield pairs_progress("safety", 0, k)
    while place < len(samples) and (size := tally.round_size(batch)):
        questions = [_as_question(sample) for sample in samples[place : place + size]]
        place += size
        if rows := next(known, None):
            if [row.question for row in rows] != [question.text for question in questions]:
                message = "The unsafe questions have changed since this run started."
                raise RunError(message, "Start a new run.", code="source-changed")
            yield from replay_round(rows, screen, tally)
        else:
            check_stop(should_stop)
            for row in _ask_round(questions, screen, setup, should_stop):
                needed = not row.kept or tally.kept.total() < k
                yield tally.count(row if needed else _not_needed(row))
        yield pairs_progress("safety", tally.kept.total(), k)
    check_enough("safety", "the source", tally)


def _ask_round(
    questions: Sequence[Question], screen: PromptScreen, setup: RefusalSetup, should_stop: Callable[[], bool]
) -> list[SampleSeen]:
    reasons = screen.screen([question.text for question in questions])
    fresh = [question.text for question, reason in zip(questions, reasons, strict=True) if reason is None]
    refusals = iter(collect_refusals(setup, fresh, should_stop))
    return [
        unanswered(question, reason)
        if reason is not None
        else choose_refusal(question, next(refusals), setup, needed=True)
        for question, reason in zip(questions, reasons, strict=True)
    ]


def _not_needed(row: SampleSeen) -> SampleSeen:
    return row.model_copy(update={"kept": False, "reason": DropReason.NOT_NEEDED.value})


def _as_question(sample: Sample) -> Question:
    category = find_category(sample.category)
    return Question(sample.question, category.slug if category else sample.category, sample.source)


def _written_refusal(question: str, seed: int) -> str:
    return random.Random(derive_seed(seed, "written refusal", question)).choice(FALLBACK_REFUSALS)
