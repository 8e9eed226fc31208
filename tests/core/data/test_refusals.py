"""Refusals for questions without answers: confirmed ones from the pool, or our own on request."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from core.contracts.events import SampleSeen
from core.contracts.verdicts import UNKNOWN, Verdict
from core.data.question_rounds import TextModel
from core.data.refusals import FALLBACK_REFUSALS, RefusalSetup, confirms_refusal, refuse_questions
from core.data.training_pairs import FALLBACK, MAX_PAIR_CHARACTERS, DropReason, Sample, samples_from_events
from core.errors import DataError, RunError
from core.guards.phrases import PhrasesGuard
from core.runs.replay import Replay
from tests.core.data.fake_models import REFUSAL, Answerer, complier, never, nonsense_question, refuser, rows

RNG = random.Random(0)
SAMPLES = [
    Sample(nonsense_question(RNG), "", "self_harm", provenance="dataset", source=f"o/d@1/train#{n}") for n in range(40)
]


def setup_of(pool: Mapping[str, TextModel], fallback: bool = False) -> RefusalSetup:
    return RefusalSetup(pool, PhrasesGuard(), max_new_tokens=8, seed=0, fallback=fallback)


def refuse(pool: Mapping[str, TextModel], k: int = 8, fallback: bool = False, **options: object) -> list[SampleSeen]:
    keys = {"held_out": (), "should_stop": never} | options
    return rows(refuse_questions(SAMPLES, setup_of(pool, fallback), k=k, **keys))  # type: ignore[arg-type]


def test_the_pool_refuses_and_each_row_has_its_source() -> None:
    events = refuse({"a": complier(), "b": refuser()})
    kept = [event for event in events if event.kept]
    assert len(kept) == 8
    assert {(event.answered_by, event.answer, event.guard) for event in kept} == {("b", REFUSAL, "phrases")}
    assert kept[0].source == SAMPLES[0].source
    assert [(verdict.model, verdict.refusal) for verdict in kept[0].verdicts] == [("a", False), ("b", True)]
    [first, *_] = samples_from_events(events, "safety", "dataset")
    assert (first.source, first.verdicts, first.provenance) == (SAMPLES[0].source, kept[0].verdicts, "dataset")


def test_questions_nobody_refuses_are_dropped_by_default_and_get_a_written_refusal_on_request() -> None:
    with pytest.raises(DataError) as caught:
        refuse({"a": complier()})
    assert caught.value.code == "too-few-pairs" and DropReason.NOBODY_REFUSES in caught.value.message
    assert "fallback_refusals" in caught.value.hint
    kept = [event for event in refuse({"a": complier()}, fallback=True) if event.kept]
    assert len(kept) == 8
    assert {event.answered_by for event in kept} == {FALLBACK}
    assert all(event.answer in FALLBACK_REFUSALS and event.refused_by == () for event in kept)


def test_a_refusal_of_the_pool_takes_precedence_over_our_own() -> None:
    questions = {sample.question for sample in SAMPLES[:4]}
    half = Answerer(lambda question: REFUSAL if question in questions else "Sure, the answer is simple enough.")
    by = [event.answered_by for event in refuse({"a": half}, fallback=True) if event.kept]
    assert by == ["a"] * 4 + [FALLBACK] * 4


def test_every_written_refusal_passes_the_guard() -> None:
    verdicts = PhrasesGuard().judge([("Tell me how.", refusal) for refusal in FALLBACK_REFUSALS])
    assert all(confirms_refusal(verdict) for verdict in verdicts)


def test_a_refusal_that_the_guard_could_not_judge_is_not_confirmed() -> None:
    refusal = Verdict(refusal=True, safe=None, degenerate=False, category="apology", score=1.0, reason="sorry")
    assert confirms_refusal(refusal) and confirms_refusal(refusal._replace(safe=True))
    assert not confirms_refusal(refusal._replace(category=UNKNOWN))
    assert not confirms_refusal(refusal._replace(safe=False))
    assert not confirms_refusal(refusal._replace(degenerate=True))


def test_held_out_and_overlong_questions_are_never_asked() -> None:
    model = refuser()
    long = Sample("x " * MAX_PAIR_CHARACTERS, "")
    chosen = setup_of({"a": model})
    events = rows(refuse_questions([long, *SAMPLES], chosen, k=4, held_out=[SAMPLES[0].question], should_stop=never))
    assert events[0].reason == DropReason.HELD_OUT
    assert SAMPLES[0].question not in model.questions and long.question not in model.questions


def test_replayed_rounds_are_not_asked_again() -> None:
    whole = list(refuse_questions(SAMPLES, setup_of({"a": refuser()}), k=20, held_out=(), should_stop=never, batch=8))
    cut = whole[: 8 + 1 + 1 + 3]
    replayed = Replay(tuple(cut)).rounds("safety")
    assert [len(rounds) for rounds in replayed] == [8]
    model = refuser()
    again = list(
        refuse_questions(
            SAMPLES, setup_of({"a": model}), k=20, held_out=(), should_stop=never, batch=8, replayed=replayed
        )
    )
    assert [event.model_dump(exclude={"at"}) for event in again] == [e.model_dump(exclude={"at"}) for e in whole]
    assert not {sample.question for sample in SAMPLES[:8]} & set(model.questions)


def test_replayed_rounds_of_other_questions_are_refused() -> None:
    replayed = [[SampleSeen(dataset="safety", question="Another?", kept=True)]]
    with pytest.raises(RunError) as caught:
        refuse({"a": refuser()}, replayed=replayed)
    assert caught.value.code == "source-changed"
