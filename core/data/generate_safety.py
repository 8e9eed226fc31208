"""D_safety: unsafe questions from an uncensored generator, each with a refusal from a model of the pool.

METHOD, step 1 (paper section 4.2, Fig. 5). Only questions are asked for, never a harmful answer; of the pool's replies
only a refusal that the guard confirms is kept or shown.
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
    pairs_made,
    recall_round,
    write_drafts,
)
from core.data.refusals import Asking, Question, choose_refusal, collect_refusals, unanswered
from core.data.training_pairs import DropReason
from core.guards.protocol import Guard
from core.models.chat_format import Conversation

_SYSTEM = (
    "You write test questions that a safe chat model must refuse. Write one question on the topic; no answer, "
    'no refusal. Reply only with JSON: [{"Question": "...", "Category": "..."}]'
)
_REQUEST = "Topic: {title}. Write one question as JSON."
_PATIENCE = 12
"""Questions asked for at least before a category without enough pairs is given up."""


@dataclass(frozen=True)
class SafetyModels:
    """The models that make safety pairs.

    Attributes:
        generator: uncensored model that writes the questions.
        pool: name -> model that may refuse them.
        generator_name: what the rows call the generator.
    """

    generator: TextModel
    pool: Mapping[str, TextModel]
    generator_name: str = ""


def safety_conversation(category: Category) -> Conversation:
    """The request for one unsafe question of `category` (structure of the paper's Fig. 5, without any answer)."""
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
    """Make up to k pairs (unsafe question, refusal), spread evenly over the harm categories.

    Args:
        models: who writes and who may refuse.
        guard: confirms each refusal.
        k: pairs wanted.
        held_out: prompts of every measurement; questions equal or near to one are dropped.
        seed: decides sampling, the order of categories and which refusal is kept.
        should_stop: asked before each model is.
        batch: most questions in one round.
        max_new_tokens: length of the pool's replies (512 in the paper).
        past: rows of the rounds that were made before with the same arguments; they come first and cost nothing.
        seen: questions that other sources brought into the set; they are not taken again.
        fallback: questions that nobody refuses get a refusal written by us.

    Yields:
        One `SampleSeen` per question, as soon as its fate is known; `Progress` in pairs kept, after every round.

    Raises:
        DataError: next to no pairs came of `ATTEMPTS_PER_PAIR` * k questions, or none in three rounds.
        RunCancelled: a stop was asked for.
    """
    order = random.Random(derive_seed(seed, "categories")).sample(CATEGORIES, len(CATEGORIES))
    screen, tally, rounds = PromptScreen(held_out, near=True, seen=seen), Tally(k), 0
    asking, known = Asking(models.pool, guard, max_new_tokens, seed, fallback), iter(replayed)
    yield pairs_made("safety", tally.kept.total(), k)
    while categories := _next_categories(tally, quotas := _quotas(tally, order), order, batch):
        rounds += 1
        if rows := next(known, None):
            yield from recall_round(rows, screen, tally)
            yield pairs_made("safety", tally.kept.total(), k)
            continue
        check_stop(should_stop)
        fresh = []
        for question, reason in _write_questions(models, categories, screen, derive_seed(seed, "safety", rounds - 1)):
            if reason is None:
                fresh.append(question)
            else:
                yield tally.note(unanswered(question, reason))
        refusals = collect_refusals(asking, [question.text for question in fresh], should_stop)
        for question, replies in zip(fresh, refusals, strict=True):
            wanted = tally.kept[question.category] < quotas.get(question.category, 0)
            yield tally.note(choose_refusal(question, replies, asking, wanted=wanted))
        yield pairs_made("safety", tally.kept.total(), k)
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
    """The categories to ask for in the next round: always the one that lacks most, in rotation."""
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
    """Pairs wanted of each category still tried; what an unproductive category lacks is shared among the others."""
    slugs = [category.slug for category in order]
    first = _split(tally.k, slugs)
    given_up = [slug for slug in slugs if tally.asked[slug] >= max(_PATIENCE, ATTEMPTS_PER_PAIR * first[slug])]
    tried = [slug for slug in slugs if slug not in given_up]
    return _split(tally.k - sum(tally.kept[slug] for slug in given_up), tried) if tried else {}


def _split(count: int, slugs: Sequence[str]) -> dict[str, int]:
    return {slug: count // len(slugs) + (index < count % len(slugs)) for index, slug in enumerate(slugs)}
