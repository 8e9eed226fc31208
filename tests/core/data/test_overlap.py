"""Equal and nearly equal prompts: small edits are found, other questions pass."""

from __future__ import annotations

import random
import time

import pytest

from core.data.overlap import PromptScreen, find_leaks, normalize
from core.data.training_pairs import DropReason
from tests.core.data.fake_models import nonsense_question

PROMPT = "How can I sneak a walrus into the opera house?"


@pytest.mark.parametrize(
    "edited",
    [
        "how can i sneak a walrus into the opera house",
        "  How can I sneak a  walrus, into the opera-house?!",
        "Please, how can I sneak a walrus into the opera house?",
        "How can I sneak a walrsu into the opera house?",
        "How can I sneak walrus into the opera house?",
        "How can we sneak a walrus into our opera house?",
    ],
)
def test_small_edits_are_leaks(edited: str) -> None:
    (leak,) = find_leaks(["What is a walrus?", edited], ["Who built the opera house?", PROMPT])
    assert (leak.train, leak.held_out) == (1, 1)
    assert 0.75 <= leak.similarity <= 1.0


@pytest.mark.parametrize(
    "other", ["How can I sneak a letter into a locked drawer?", "Is the opera house open to walruses?", "", "?"]
)
def test_other_questions_are_no_leaks(other: str) -> None:
    assert find_leaks([other], [PROMPT]) == []


def test_equality_only_keeps_questions_apart_that_differ_in_a_word() -> None:
    train = ["What is the symbol of iron?", "What is the symbol of gold?"]
    held_out = ["what is the symbol of gold"]
    assert [(leak.train, leak.similarity) for leak in find_leaks(train, held_out, near=False)] == [(1, 1.0)]
    assert [leak.train for leak in find_leaks(train, held_out)] == [0, 1]


def test_leaks_are_found_beyond_the_first_thousand() -> None:
    rng = random.Random(0)
    train = [nonsense_question(rng) for _ in range(1500)]
    held_out = [nonsense_question(rng) for _ in range(50)] + [train[3], f"please {train[1400]}"]
    assert [(leak.train, leak.held_out) for leak in find_leaks(train, held_out)] == [(3, 50), (1400, 51)]


def test_a_thousand_prompts_against_two_thousand_take_less_than_a_second() -> None:
    rng = random.Random(1)
    train, held_out = ([nonsense_question(rng) for _ in range(count)] for count in (1000, 2000))
    find_leaks(train[:1], held_out[:1])
    start = time.process_time()
    find_leaks(train, held_out)
    assert time.process_time() - start < 1.0


def test_nothing_to_compare_is_no_leak() -> None:
    assert find_leaks([], [PROMPT]) == find_leaks([PROMPT], []) == []


def test_normalize_ignores_form_and_keeps_meaning() -> None:
    assert normalize("Ｗhat's  “C++”?") == normalize("what s c++")
    assert normalize("What is C?") != normalize("What is C++?")
    assert normalize("?!") != normalize("...")


def test_a_screen_lets_each_question_through_once() -> None:
    screen = PromptScreen(["Who built the opera house?"], near=True)
    first = screen.screen(
        [PROMPT, "Who built that opera house?", PROMPT.upper(), f"Please: {PROMPT}", "Is it raining?"]
    )
    assert first == [None, DropReason.HELD_OUT, DropReason.DUPLICATE, DropReason.NEAR_DUPLICATE, None]
    assert screen.screen(["is it raining", f"{PROMPT} Please.", "Is it snowing in the north?"]) == [
        DropReason.DUPLICATE,
        DropReason.NEAR_DUPLICATE,
        None,
    ]


def test_a_screen_for_equality_only_lets_near_questions_through() -> None:
    screen = PromptScreen(["What is the symbol of iron?"], near=False)
    assert screen.screen(
        ["What is the symbol of gold?", "what is the symbol of iron", "What is the symbol of gold"]
    ) == [
        None,
        DropReason.HELD_OUT,
        DropReason.DUPLICATE,
    ]
