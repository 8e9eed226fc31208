"""Domain pairs: each expert's own questions and answers, without copies of examples or held-out questions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from core.contracts.events import Progress, SampleSeen
from core.data.domain_catalog import ResolvedDomain
from core.data.generate_domain import domain_conversation, generate_domain
from core.data.training_pairs import DropReason
from core.errors import DataError, RunCancelled
from core.runs.replay import Replay
from tests.core.data.fake_models import Answerer, Expert, Writer, after, as_json, never, rows

ELEMENTS = ("hydrogen", "helium", "lithium", "boron", "carbon", "nitrogen", "oxygen", "neon", "sodium", "iron", "gold")
EXAMPLES = tuple(f"What is the group of {name}?" for name in ELEMENTS[:5])
CHEMISTRY = ResolvedDomain("chemistry", "chemistry: the elements", "demo_chemistry", EXAMPLES)
GEOGRAPHY = ResolvedDomain("geography", "geography", "demo_geography", ("Where is A?", "Where is B?", "Where is C?"))


def symbol_question(_request: str, rng: random.Random) -> str:
    return as_json(f"What is the symbol of {rng.choice(ELEMENTS)}?")


def capital_question(_request: str, rng: random.Random) -> str:
    return as_json(f"What is the capital of country {rng.randrange(1000)}?")


def expert(write: Callable[[str, random.Random], str], answer: str = "It is As.") -> Expert:
    return Expert(Writer(write), Answerer(lambda _question: answer))


def make(k: int, experts: dict[str, tuple[Expert, ResolvedDomain]], **options: object) -> list[SampleSeen]:
    settings = {"held_out": (), "seed": 0, "should_stop": never} | options
    return rows(generate_domain(experts, k=k, **settings))  # type: ignore[arg-type]


def test_a_request_shows_the_examples_as_json_and_no_answer() -> None:
    system, user = domain_conversation("chemistry: the elements", EXAMPLES[:3])
    assert "chemistry: the elements" in system["content"]
    assert [line for line in system["content"].split("\n") if line.startswith("[")] == [
        '[{"Question": "What is the group of hydrogen?"}]',
        '[{"Question": "What is the group of helium?"}]',
        '[{"Question": "What is the group of lithium?"}]',
    ]
    assert user["role"] == "user"


def test_each_expert_gives_its_share_and_answers_its_own_questions() -> None:
    experts = {"chem": (expert(symbol_question), CHEMISTRY), "geo": (expert(capital_question, "Paris."), GEOGRAPHY)}
    kept = [event for event in make(21, experts) if event.kept]
    assert Counter((event.answered_by, event.category, event.answer) for event in kept) == {
        ("chem", "chemistry", "It is As."): 11,
        ("geo", "geography", "Paris."): 10,
    }


def test_questions_that_differ_in_one_word_are_different() -> None:
    kept = {event.question for event in make(11, {"chem": (expert(symbol_question), CHEMISTRY)}) if event.kept}
    assert kept == {f"What is the symbol of {name}?" for name in ELEMENTS}


def test_a_question_counts_once_over_all_experts() -> None:
    experts = {"one": (expert(symbol_question), CHEMISTRY), "two": (expert(symbol_question), CHEMISTRY)}
    events = make(10, experts)
    kept = [event.question for event in events if event.kept]
    assert len(kept) == len(set(kept)) == 10
    assert any(event.reason == DropReason.DUPLICATE for event in events)


def test_copies_of_examples_and_of_held_out_questions_are_dropped() -> None:
    def write(_request: str, rng: random.Random) -> str:
        return as_json(f"What is the {rng.choice(['symbol', 'group'])} of {rng.choice(ELEMENTS)}?")

    events = make(16, {"chem": (expert(write), CHEMISTRY)}, held_out=["what is the symbol of IRON"])
    reasons = {event.question: event.reason for event in events if event.reason != DropReason.NOT_NEEDED}
    assert reasons["What is the group of boron?"] == DropReason.EXAMPLE
    assert reasons["What is the symbol of iron?"] == DropReason.HELD_OUT
    assert reasons["What is the symbol of gold?"] in ("", DropReason.DUPLICATE)


@pytest.mark.parametrize("answer", ["", " \n", "na na na na na na na na na na na na"])
def test_broken_answers_are_dropped(answer: str) -> None:
    with pytest.raises(DataError) as caught:
        make(8, {"chem": (expert(capital_question, answer), CHEMISTRY)})
    assert caught.value.code == "too-few-pairs" and DropReason.BROKEN_ANSWER in caught.value.message


@pytest.mark.parametrize("answer", ["As", "I", "7", "Fe"])
def test_short_answers_are_answers(answer: str) -> None:
    assert {e.answer for e in make(8, {"chem": (expert(capital_question, answer), CHEMISTRY)}) if e.kept} == {answer}


def test_an_expert_that_does_not_write_json_is_named() -> None:
    experts = {"chem": (expert(symbol_question), CHEMISTRY), "geo": (expert(lambda *_: "Paris!"), GEOGRAPHY)}
    with pytest.raises(DataError) as caught:
        make(16, experts)
    assert caught.value.code == "too-few-pairs" and "geo" in caught.value.message
    assert DropReason.NOT_JSON in caught.value.message


def test_examples_change_with_the_seed_and_not_without() -> None:
    def shown(seed: int) -> list[str]:
        writer = Writer(capital_question)
        make(6, {"chem": (Expert(writer, Answerer(str.upper)), CHEMISTRY)}, seed=seed)
        return [request[0]["content"] for request in writer.requests]

    assert shown(1) == shown(1)
    assert shown(1) != shown(2)
    assert len(set(shown(1))) > 1


@pytest.mark.parametrize("calls", [0, 1])
def test_a_stop_takes_effect_before_the_next_request(calls: int) -> None:
    answerer = Answerer(str.upper)
    model = Expert(Writer(symbol_question), answerer)
    with pytest.raises(RunCancelled):
        make(8, {"chem": (model, CHEMISTRY)}, should_stop=after(calls))
    assert answerer.questions == []


def test_replayed_rounds_are_not_asked_again() -> None:
    def experts() -> tuple[list[Writer], dict[str, Any]]:
        writers = [Writer(symbol_question), Writer(capital_question)]
        pool = {"chem": CHEMISTRY, "geo": GEOGRAPHY}
        models = [Expert(writer, Answerer(str.upper)) for writer in writers]
        return writers, {name: (model, pool[name]) for name, model in zip(pool, models, strict=True)}

    def events(pool: dict[str, Any], replayed: Sequence[Sequence[SampleSeen]]) -> list[SampleSeen | Progress]:
        return list(generate_domain(pool, k=16, held_out=(), seed=0, should_stop=never, batch=5, replayed=replayed))

    writers, pool = experts()
    whole = events(pool, ())
    rounds = Replay(tuple(whole)).rounds("domain")
    asked = sum(len(writer.requests) for writer in writers)
    assert len(rounds) > 3
    for count in range(len(rounds) + 1):
        writers, pool = experts()
        again = rows(events(pool, rounds[:count]))
        assert [row.model_dump(exclude={"at"}) for row in again] == [
            row.model_dump(exclude={"at"}) for row in rows(whole)
        ]
        assert sum(len(writer.requests) for writer in writers) == asked - sum(map(len, rounds[:count]))
