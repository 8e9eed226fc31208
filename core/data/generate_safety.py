"""Generates D_safety: unsafe questions from an uncensored generator, each with a refusal from a model of the pool.

Source: arXiv 2406.14563, section 4.2 and Fig. 5. The generator is asked for questions only, never for harmful answers.
Of the pool's replies only refusals that the guard confirms are kept or shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from core.contracts.events import Progress, SampleSeen
from core.data.categories import CATEGORIES, Category
from core.data.overlap import PromptScreen
from core.data.question_rounds import (
    ATTEMPTS_PER_PAIR,
    BATCH,
    Tally,
    TextModel,
    check_enough,
    check_stop,
    derive_seed,
    pairs_progress,
    replay_round,
    write_drafts,
)
from core.data.refusals import Question, RefusalSetup, choose_refusal, collect_refusals, unanswered
from core.data.training_pairs import DropReason
from core.guards.protocol import Guard
from core.models.chat_format import Conversation

_SYSTEM = (
    "You write test questions that a safe chat model must refuse. Write one question on the topic; no answer, "
    'no refusal. Reply only with JSON: [{"Question": "...", "Category": "..."}]'
)
_REQUEST = "Topic: {title}. Write one question as JSON."
_MIN_QUESTIONS = 12
"""Minimum number of questions before a category without enough pairs is abandoned."""


@dataclass(frozen=True)
class SafetyModels:
    """The models that make safety pairs.

    Attributes:
        generator: uncensored model that writes the questions.
        pool: name -> model that may refuse them.
        generator_name: name of the generator in the rows.
    """

    generator: TextModel
    pool: Mapping[str, TextModel]
    generator_name: str = ""


def safety_conversation(category: Category) -> Conversation:
    """The request for one unsafe question of `category` (structure of Fig. 5 in the paper, without an answer)."""
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _REQUEST.format(title=category.title)}]


def generate_safety(
    models: SafetyModels,
    guard: Guard,
    *,
    k: int,
    held_out: Sequence[str],
    seed: int,
    should_stop: Callable[[], bool],
    batch: int = BATCH,
    max_new_tokens: int = 48,
    replayed: Sequence[Sequence[SampleSeen]] = (),
    seen: Sequence[str] = (),
    fallback: bool = False,
) -> Iterator[SampleSeen | Progress]:
    """Make up to k pairs (unsafe question, refusal), evenly distributed over the harm categories.

    Args:
        models: the generator, and the models that may refuse.
        guard: confirms each refusal.
        k: number of pairs.
        held_out: prompts of all measurements; questions that equal or nearly equal one are dropped.
        seed: for sampling, the order of categories and the choice of refusals.
        should_stop: called before each request to a model.
        batch: maximum number of questions in one round.
        max_new_tokens: maximum length of the pool's replies (512 in the paper).
        replayed: rows of rounds that an earlier run made with the same arguments; they are yielded first.
        seen: questions of the set's other sources; they are dropped.
        fallback: whether questions that no model refuses get one of our own refusals.

    Yields:
        One `SampleSeen` per question, kept or dropped, and `Progress` in kept pairs after every round.

    Raises:
        DataError: `ATTEMPTS_PER_PAIR` * k questions gave far too few pairs, or three rounds gave none.
        RunCancelled: a stop was requested.
    """
    order = random.Random(derive_seed(seed, "categories")).sample(CATEGORIES, len(CATEGORIES))
    screen, tally, rounds = PromptScreen(held_out, near=True, seen=seen), Tally(k), 0
    setup, known = RefusalSetup(models.pool, guard, max_new_tokens, seed, fallback), iter(replayed)
    yield pairs_progress("safety", tally.kept.total(), k)
    while categories := _next_categories(tally, quotas := _quotas(tally, order), order, batch):
        rounds += 1
        if rows := next(known, None):
            yield from replay_round(rows, screen, tally)
            yield pairs_progress("safety", tally.kept.total(), k)
            continue
        check_stop(should_stop)
        fresh = []
        for question, reason in _write_questions(models, categories, screen, derive_seed(seed, "safety", rounds - 1)):
            if reason is None:
                fresh.append(question)
            else:
                yield tally.count(unanswered(question, reason))
        refusals = collect_refusals(setup, [question.text for question in fresh], should_stop)
        for question, replies in zip(fresh, refusals, strict=True):
            needed = tally.kept[question.category] < quotas.get(question.category, 0)
            yield tally.count(choose_refusal(question, replies, setup, needed=needed))
        yield pairs_progress("safety", tally.kept.total(), k)
    check_enough("safety", "the generator", tally)


def _write_questions(
    models: SafetyModels, categories: Sequence[Category], screen: PromptScreen, seed: int
) -> list[tuple[Question, DropReason | None]]:
    conversations = [safety_conversation(category) for category in categories]
    drafts = write_drafts(models.generator, conversations, screen, seed=seed)
    return [
        (Question(draft.text, category.slug, models.generator_name, draft.seed, draft.prompt_sha256), draft.reason)
        for category, draft in zip(categories, drafts, strict=True)
    ]


def _next_categories(tally: Tally, quotas: Mapping[str, int], order: Sequence[Category], batch: int) -> list[Category]:
    """The categories of the next round's questions; each is the category that then lacks most pairs."""
    lacking = {slug: float(quota - tally.kept[slug]) for slug, quota in quotas.items() if quota > tally.kept[slug]}
    if not lacking:
        return []
    by_slug = {category.slug: category for category in order}
    chosen = []
    for _ in range(tally.round_size(batch)):
        slug = max(lacking, key=lacking.__getitem__)
        lacking[slug] -= tally.expected_yield()
        chosen.append(by_slug[slug])
    return chosen


def _quotas(tally: Tally, order: Sequence[Category]) -> dict[str, int]:
    """Number of pairs for each active category; the shares of abandoned categories go to the others."""
    slugs = [category.slug for category in order]
    first = _split(tally.k, slugs)
    abandoned = [slug for slug in slugs if tally.asked[slug] >= max(_MIN_QUESTIONS, ATTEMPTS_PER_PAIR * first[slug])]
    active = [slug for slug in slugs if slug not in abandoned]
    return _split(tally.k - sum(tally.kept[slug] for slug in abandoned), active) if active else {}


def _split(count: int, slugs: Sequence[str]) -> dict[str, int]:
    return {slug: count // len(slugs) + (index < count % len(slugs)) for index, slug in enumerate(slugs)}
