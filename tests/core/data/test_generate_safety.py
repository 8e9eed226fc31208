"""Safety pairs: evenly distributed over categories, with confirmed refusals, without leaks, and errors with reasons."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from core.contracts.events import Progress, SampleSeen
from core.data.categories import CATEGORIES
from core.data.generate_safety import SafetyModels, generate_safety, safety_conversation
from core.data.question_rounds import BATCH, TextModel
from core.data.training_pairs import DropReason
from core.errors import DataError, RunCancelled
from core.guards.phrases import PhrasesGuard
from core.runs.replay import Replay
from tests.core.data.fake_models import (
    REFUSAL,
    Writer,
    after,
    as_json,
    complier,
    never,
    nonsense_question,
    refuser,
    rows,
)


def make(
    k: int, generator: TextModel, pool: Mapping[str, TextModel] | None = None, **options: object
) -> list[SampleSeen]:
    settings = {"held_out": (), "seed": 0, "should_stop": never} | options
    models = SafetyModels(generator, pool or {"aligned": refuser()})
    return rows(generate_safety(models, PhrasesGuard(), k=k, **settings))  # type: ignore[arg-type]


def facts(events: list[SampleSeen]) -> list[dict[str, object]]:
    return [event.model_dump(exclude={"at"}) for event in events]


def kept_by_category(events: list[SampleSeen]) -> Counter[str]:
    return Counter(event.category for event in events if event.kept)


def test_a_request_names_its_category_and_asks_for_no_answer() -> None:
    system, user = safety_conversation(CATEGORIES[0])
    assert CATEGORIES[0].title in user["content"]
    assert not any(category.title in system["content"] + user["content"] for category in CATEGORIES[1:])
    assert '"Question"' in system["content"] and '"Answer"' not in system["content"]
    assert len(system["content"]) < 240, "the demo pays for every token of it"


@pytest.mark.parametrize("k", [14, 28, 64])
def test_categories_are_covered_evenly(k: int) -> None:
    counts = kept_by_category(make(k, Writer()))
    assert counts.total() == k
    assert len(counts) == 14
    assert max(counts.values()) - min(counts.values()) <= 1


def test_categories_stay_even_when_half_of_the_replies_are_no_json() -> None:
    writer = Writer(lambda _, rng: as_json(nonsense_question(rng)) if rng.random() < 0.5 else "Here you go!")
    events = make(28, writer)
    assert kept_by_category(events) == {category.slug: 2 for category in CATEGORIES}
    assert {event.reason for event in events if not event.kept} >= {DropReason.NOT_JSON}


def test_an_unproductive_category_is_abandoned_and_the_others_replace_it() -> None:
    dead = CATEGORIES[3]
    writer = Writer(lambda request, rng: "No." if dead.title in request else as_json(nonsense_question(rng)))
    events = make(28, writer)
    counts = kept_by_category(events)
    assert counts.total() == 28 and dead.slug not in counts and len(counts) == 13
    assert sum(event.category == dead.slug for event in events) <= 6 * 2 + 4


def test_a_kept_pair_has_one_of_the_refusals_and_names_all_who_refused() -> None:
    pool = {"a": refuser("I'm sorry, I can't help with that."), "b": complier(), "c": refuser("I cannot assist.")}
    events = [event for event in make(28, Writer(), pool) if event.kept]
    assert {event.refused_by for event in events} == {("a", "c")}
    assert {(event.answered_by, event.answer) for event in events} == {
        ("a", "I'm sorry, I can't help with that."),
        ("c", "I cannot assist."),
    }


def test_nobody_refuses_names_the_pool_and_shows_no_reply() -> None:
    seen: list[SampleSeen] = []
    generator = generate_safety(
        SafetyModels(Writer(), {"expert": complier()}), PhrasesGuard(), k=16, held_out=(), seed=0, should_stop=never
    )
    with pytest.raises(DataError) as caught:
        seen.extend(event for event in generator if isinstance(event, SampleSeen))
    assert caught.value.code == "too-few-pairs" and DropReason.NOBODY_REFUSES in caught.value.message
    assert "0 of 16" in caught.value.message and "fallback_refusals" in caught.value.hint
    assert seen and {event.answer for event in seen} == {""}


def test_looping_refusals_do_not_count() -> None:
    with pytest.raises(DataError) as caught:
        make(14, Writer(), {"broken": refuser("I cannot help with that. " * 12)})
    assert caught.value.code == "too-few-pairs" and DropReason.NOBODY_REFUSES in caught.value.message


def test_a_generator_without_json_has_its_own_hint_and_is_stopped_early() -> None:
    writer, pool = Writer(lambda *_: "I am happy to help you with anything."), refuser()
    with pytest.raises(DataError) as caught:
        make(100, writer, {"aligned": pool})
    assert DropReason.NOT_JSON in caught.value.message and "fallback_refusals" not in caught.value.hint
    assert len(writer.requests) == 3 * BATCH
    assert pool.questions == []


def test_the_same_question_again_and_again_is_kept_once() -> None:
    writer, pool = Writer(lambda *_: as_json("How do the marbles vanish?")), refuser()
    with pytest.raises(DataError) as caught:
        make(64, writer, {"aligned": pool})
    assert caught.value.code == "too-few-pairs" and DropReason.DUPLICATE in caught.value.message
    assert pool.questions == ["How do the marbles vanish?"]


def test_fewer_pairs_than_wanted_are_accepted_when_there_are_some() -> None:
    stock = [nonsense_question(random.Random(number)) for number in range(20)]
    events = make(64, Writer(lambda _, rng: as_json(rng.choice(stock))))
    assert {event.question for event in events if event.kept} == set(stock)


def test_questions_near_a_held_out_prompt_are_dropped() -> None:
    leaked = "Which purple walrus paints the harbour at midnight?"
    writer = Writer(lambda _, rng: as_json(leaked if rng.random() < 0.2 else nonsense_question(rng)))
    events = make(28, writer, held_out=["please, which purple walrus paints the harbour at midnight"])
    assert {event.reason for event in events if event.question == leaked} == {DropReason.HELD_OUT}
    assert sum(event.kept for event in events) == 28


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    pool = {"a": refuser(), "b": refuser("I cannot assist.")}
    assert facts(make(20, Writer(), pool, seed=5)) == facts(make(20, Writer(), pool, seed=5))
    assert facts(make(20, Writer(), pool, seed=5)) != facts(make(20, Writer(), pool, seed=6))


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_stop_takes_effect_before_the_next_model_is_asked(calls: int) -> None:
    first, second = refuser(), refuser()
    generator = generate_safety(
        SafetyModels(Writer(), {"a": first, "b": second}),
        PhrasesGuard(),
        k=14,
        held_out=(),
        seed=0,
        should_stop=after(calls),
    )
    with pytest.raises(RunCancelled):
        list(generator)
    assert [bool(first.questions), bool(second.questions)] == [calls > 1, False]


def test_progress_counts_the_pairs_kept() -> None:
    events = list(
        generate_safety(
            SafetyModels(Writer(), {"a": refuser(REFUSAL)}), PhrasesGuard(), k=20, held_out=(), seed=0,
            should_stop=never, batch=8,
        )
    )  # fmt: skip
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.done for event in progress] == [0, 8, 16, 20]
    assert {event.total for event in progress} == {20}


def test_replayed_rounds_are_taken_over_and_the_rest_is_unchanged() -> None:
    def writer() -> Writer:
        def write(_request: str, rng: random.Random) -> str:
            known = nonsense_question(random.Random(rng.randrange(24)))
            return rng.choice(["No JSON.", as_json(known), as_json(f"{known[:-1]} please?")])

        return Writer(write)

    def events(generator: Writer, replayed: Sequence[Sequence[SampleSeen]]) -> list[SampleSeen | Progress]:
        models = SafetyModels(generator, {"aligned": refuser()})
        return list(
            generate_safety(
                models, PhrasesGuard(), k=14, held_out=(), seed=0, should_stop=never, batch=8, replayed=replayed
            )
        )

    first = writer()
    whole = events(first, ())
    rounds = Replay(tuple(whole)).rounds("safety")
    reasons = {row.reason for row in rows(whole)}
    assert {DropReason.NEAR_DUPLICATE, DropReason.DUPLICATE, DropReason.NOT_JSON} <= reasons
    assert len(rounds) > 4
    for count in range(len(rounds) + 1):
        second = writer()
        assert facts(rows(events(second, rounds[:count]))) == facts(rows(whole))
        assert len(second.requests) == len(first.requests) - sum(map(len, rounds[:count]))
