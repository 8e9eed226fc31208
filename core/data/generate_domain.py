"""Generates D_expert by self-questioning: each expert writes questions in its domain and answers them itself.

Source: arXiv 2406.14563, section 4.2 and Fig. 4. Questions are compared for equality only, because "What is the symbol
of iron?" and "What is the symbol of gold?" are different questions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from core.contracts.events import Progress, SampleSeen
from core.data.domain_catalog import EXAMPLES_SHOWN, ResolvedDomain
from core.data.overlap import PromptScreen, normalize
from core.data.question_rounds import (
    BATCH,
    Draft,
    Tally,
    TextModel,
    answer_greedily,
    check_enough,
    check_stop,
    derive_seed,
    pairs_progress,
    replay_round,
    write_drafts,
)
from core.data.training_pairs import DropReason
from core.guards.degeneration import find_fault
from core.models.chat_format import Conversation

_SYSTEM = (
    "You are an expert in {topic} and write exam questions. Reply only with JSON that has the single key "
    '"Question"; do not give the answer. Examples:\n{examples}'
)
_REQUEST = "Write one new question as JSON."
_ALLOWED_FAULTS = ("fragment", "language")
"""Faults that an answer may have: the symbol of arsenic is "As", and an answer need not be English."""


def domain_conversation(topic: str, examples: Sequence[str]) -> Conversation:
    """The request for one question on `topic` that resembles the examples (structure of Fig. 4 in the paper)."""
    shown = "\n".join(json.dumps([{"Question": example}], ensure_ascii=False) for example in examples)
    return [
        {"role": "system", "content": _SYSTEM.format(topic=topic, examples=shown)},
        {"role": "user", "content": _REQUEST},
    ]


def generate_domain(
    experts: Mapping[str, tuple[TextModel, ResolvedDomain]],
    *,
    k: int,
    held_out: Sequence[str],
    seed: int,
    should_stop: Callable[[], bool],
    batch: int = BATCH,
    max_new_tokens: int = 48,
    replayed: Sequence[Sequence[SampleSeen]] = (),
    seen: Sequence[str] = (),
) -> Iterator[SampleSeen | Progress]:
    """Make up to k pairs (question, answer), an equal share from each expert.

    Args:
        experts: name -> model and its domain.
        k: number of pairs in total, k/(N-1) from each of the N-1 experts.
        held_out: questions of all measurements; equal questions are dropped.
        seed: for sampling and for the choice of in-context examples.
        should_stop: called before each request to a model.
        batch: maximum number of questions in one round.
        max_new_tokens: maximum length of an answer.
        replayed: rows of rounds that an earlier run made with the same arguments; they are yielded first.
        seen: questions of the set's other sources; they are dropped.

    Yields:
        One `SampleSeen` per question, kept or dropped, and `Progress` in kept pairs after every round.

    Raises:
        DataError: an expert gave far too few pairs.
        RunCancelled: a stop was requested.
    """
    screen, done, known = PromptScreen(held_out, near=False, seen=seen), 0, iter(replayed)
    yield pairs_progress("domain", done, k)
    for index, (name, (model, domain)) in enumerate(experts.items()):
        expert = _Expert(name, model, domain)
        tally = Tally(k // len(experts) + (index < k % len(experts)))
        while size := tally.round_size(batch):
            if rows := next(known, None):
                yield from replay_round(rows, screen, tally)
            else:
                check_stop(should_stop)
                drafts = _write(expert, size, screen, derive_seed(seed, "domain", name, tally.asked.total()))
                check_stop(should_stop)
                for event in _answer(expert, drafts, tally.k - tally.kept.total(), max_new_tokens):
                    yield tally.count(event)
            yield pairs_progress("domain", done + tally.kept.total(), k)
        check_enough("domain", f"the expert {name}", tally)
        done += tally.kept.total()


class _Expert(NamedTuple):
    name: str
    model: TextModel
    domain: ResolvedDomain


def _write(expert: _Expert, count: int, screen: PromptScreen, seed: int) -> list[Draft]:
    """Draft questions with different in-context examples each; copies of an example are dropped."""
    rng, domain = random.Random(seed), expert.domain
    conversations = [
        domain_conversation(domain.topic, rng.sample(domain.examples, EXAMPLES_SHOWN)) for _ in range(count)
    ]
    drafts = write_drafts(expert.model, conversations, screen, seed=seed)
    examples = {normalize(example) for example in domain.examples}
    return [draft._replace(reason=DropReason.EXAMPLE) if _copies(draft, examples) else draft for draft in drafts]


def _copies(draft: Draft, examples: set[str]) -> bool:
    return draft.reason is not DropReason.NOT_JSON and normalize(draft.text) in examples


def _answer(expert: _Expert, drafts: Sequence[Draft], needed: int, max_new_tokens: int) -> Iterator[SampleSeen]:
    """Rows for the drafts: first the dropped ones, then up to `needed` new questions with answers."""
    fresh = [draft for draft in drafts if draft.reason is None]
    for draft in drafts:
        if draft.reason is not None:
            yield _row(expert, draft, "", draft.reason)
    for draft in fresh[needed:]:
        yield _row(expert, draft, "", DropReason.NOT_NEEDED)
    new = fresh[:needed]
    if not new:
        return
    answers = answer_greedily(expert.model, [draft.text for draft in new], max_new_tokens)
    for draft, answer in zip(new, answers, strict=True):
        fault = find_fault(draft.text, answer)
        broken = fault is not None and fault.category not in _ALLOWED_FAULTS
        yield _row(expert, draft, answer, DropReason.BROKEN_ANSWER if broken else None)


def _row(expert: _Expert, draft: Draft, answer: str, reason: DropReason | None) -> SampleSeen:
    return SampleSeen(
        dataset="domain",
        question=draft.text,
        answer=answer,
        category=expert.domain.name,
        answered_by=expert.name if answer else "",
        kept=reason is None,
        reason=reason.value if reason else "",
        source=expert.name,
        seed=draft.seed,
        prompt_sha256=draft.prompt_sha256,
    )
