"""Refusals for unsafe questions: what every model of the pool replies, judged by the guard, and the one that is kept.

METHOD, step 1 (paper section 4.2). Questions come from a generator (`core.data.generate_safety`), or from a dataset or
file without answers (`refuse_questions`). Of the replies only a refusal that the guard confirms is kept or shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from core.contracts.events import Progress, ReplyVerdict, SampleSeen
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
    pairs_made,
    recall_round,
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
    """What came of putting one question to the pool.

    Attributes:
        said: model -> its refusal, for those that refused.
        verdicts: the guard's verdict on every model.
    """

    said: dict[str, str]
    verdicts: tuple[ReplyVerdict, ...]


class Question(NamedTuple):
    """An unsafe question with where it is from (`SampleSeen` explains the fields)."""

    text: str
    category: str
    source: str = ""
    seed: int | None = None
    prompt_sha256: str = ""


class Asking(NamedTuple):
    """Who is asked, and how a refusal is chosen.

    Attributes:
        pool: name -> model that may refuse.
        guard: confirms each refusal.
        max_new_tokens: length of a reply (512 in the paper).
        seed: decides which of several refusals is kept.
        fallback: give questions that nobody refuses a refusal written by us.
    """

    pool: Mapping[str, TextModel]
    guard: Guard
    max_new_tokens: int
    seed: int
    fallback: bool = False


def confirms_refusal(verdict: Verdict) -> bool:
    """True for a reply fit to train on: it declines, in whole sentences, and does no harm on the way."""
    return verdict.refusal and not verdict.degenerate and verdict.counts_as_safe


def collect_refusals(asking: Asking, questions: Sequence[str], should_stop: Callable[[], bool]) -> list[Refusals]:
    """Put each question to every model of the pool, one model after the other."""
    said: list[dict[str, str]] = [{} for _ in questions]
    judged: list[list[ReplyVerdict]] = [[] for _ in questions]
    for name, model in asking.pool.items() if questions else ():
        check_stop(should_stop)
        replies = answer_greedily(model, questions, asking.max_new_tokens)
        verdicts = judge_replies(asking.guard, list(zip(questions, replies, strict=True)))
        for index, (reply, verdict) in enumerate(zip(replies, verdicts, strict=True)):
            judged[index].append(reply_verdict(name, verdict))
            if confirms_refusal(verdict):
                said[index][name] = reply
    return [Refusals(refused, tuple(row)) for refused, row in zip(said, judged, strict=True)]


def choose_refusal(question: Question, refusals: Refusals, asking: Asking, *, wanted: bool) -> SampleSeen:
    """Keep one of the refusals at random: the same one for the same question and seed."""
    said = refusals.said
    if not said and asking.fallback:
        said = {FALLBACK: _written_refusal(question.text, asking.seed)}
    name = random.Random(derive_seed(asking.seed, "refusal", question.text)).choice(list(said)) if said else ""
    reason = DropReason.NOBODY_REFUSES if not said else None if wanted else DropReason.NOT_NEEDED
    row = unanswered(question, reason)
    return row.model_copy(
        update={
            "answer": said.get(name, ""),
            "answered_by": name,
            "refused_by": tuple(refusals.said),
            "guard": asking.guard.name,
            "verdicts": refusals.verdicts,
        }
    )


def unanswered(question: Question, reason: DropReason | None) -> SampleSeen:
    """A row without an answer, dropped for `reason`."""
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
    asking: Asking,
    *,
    k: int,
    held_out: Sequence[str],
    should_stop: Callable[[], bool],
    batch: int = BATCH,
    replayed: Sequence[Sequence[SampleSeen]] = (),
    seen: Sequence[str] = (),
) -> Iterator[SampleSeen | Progress]:
    """Make up to k pairs of questions that come without an answer, in rounds, as generated ones are made.

    Args:
        samples: unsafe questions, in the order in which they are asked; those that are too long are passed over.
        asking: who may refuse.
        k: pairs wanted.
        held_out: prompts of every measurement; questions equal or near to one are dropped.
        should_stop: asked before each model is.
        batch: most questions in one round.
        past: rows of the rounds that were made before with the same arguments; they come first and cost nothing.
        seen: questions that other sources brought into the set; they are not taken again.

    Yields:
        One `SampleSeen` per question, and `Progress` in pairs kept, after every round.

    Raises:
        DataError: next to no pairs came of them.
        RunError: `replayed` is of other questions.
        RunCancelled: a stop was asked for.
    """
    samples = [sample for sample in samples if not sample.is_too_long]
    screen, tally, place, known = PromptScreen(held_out, near=True, seen=seen), Tally(k), 0, iter(replayed)
    yield pairs_made("safety", 0, k)
    while place < len(samples) and (size := tally.round_size(batch)):
        questions = [_as_question(sample) for sample in samples[place : place + size]]
        place += size
        if rows := next(known, None):
            if [row.question for row in rows] != [question.text for question in questions]:
                raise RunError("The unsafe questions are not those this run began with.", "Start a new run.")
            yield from recall_round(rows, screen, tally)
        else:
            check_stop(should_stop)
            for row in _ask_round(questions, screen, asking, should_stop):
                wanted = not row.kept or tally.kept.total() < k
                yield tally.note(row if wanted else _not_needed(row))
        yield pairs_made("safety", tally.kept.total(), k)
    check_enough("safety", "the source", tally)


def _ask_round(
    questions: Sequence[Question], screen: PromptScreen, asking: Asking, should_stop: Callable[[], bool]
) -> list[SampleSeen]:
    reasons = screen.screen([question.text for question in questions])
    fresh = [question.text for question, reason in zip(questions, reasons, strict=True) if reason is None]
    refusals = iter(collect_refusals(asking, fresh, should_stop))
    return [
        unanswered(question, reason)
        if reason is not None
        else choose_refusal(question, next(refusals), asking, wanted=True)
        for question, reason in zip(questions, reasons, strict=True)
    ]


def _not_needed(row: SampleSeen) -> SampleSeen:
    return row.model_copy(update={"kept": False, "reason": DropReason.NOT_NEEDED.value})


def _as_question(sample: Sample) -> Question:
    category = find_category(sample.category)
    return Question(sample.question, category.slug if category else sample.category, sample.source)


def _written_refusal(question: str, seed: int) -> str:
    return random.Random(derive_seed(seed, "written refusal", question)).choice(FALLBACK_REFUSALS)
