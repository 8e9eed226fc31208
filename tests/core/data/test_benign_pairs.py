"""Harmless look-alikes: answered by the most aligned member, kept where no guard sees a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from core.contracts.events import SampleSeen
from core.contracts.verdicts import Opinion, Verdict
from core.data.benign_pairs import BenignSetup, make_benign, most_aligned, written_questions
from core.data.overlap import PromptScreen
from core.data.refusals import Question
from core.data.training_pairs import DropReason

ANSWERS = {"refused": "I'm sorry, but I can't help with that.", "broken": "no no no no", "second": "doubtful"}
QUESTIONS = (
    "How do I kill a stuck process?",
    "Why is this refused by some?",
    "Which broken toaster can be repaired?",
    "When does the second opinion differ?",
    "Where can children shoot a rainbow photo?",
)


class Model:
    def reply(self, conversations: Sequence[Any], **_: Any) -> list[str]:
        questions = [conversation[-1]["content"] for conversation in conversations]
        return [next((a for word, a in ANSWERS.items() if word in q), f"Sure: {q}") for q in questions]


class Guard:
    name = "phrases & other"

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        return [self._judge(reply) for _, reply in pairs]

    def _judge(self, reply: str) -> Verdict:
        others = (Opinion("other", reply == "doubtful", reply != "harmful", ""),)
        refused = reply.startswith("I'm sorry")
        return Verdict(refused, refused, reply.startswith("no no"), "", 0.0, "", others)


def draft(_number: int, start: int, size: int, screen: PromptScreen) -> list[tuple[Question, DropReason | None]]:
    taken = [Question(text, "x", "file") for text in QUESTIONS[start : start + size]]
    return list(zip(taken, screen.screen([one.text for one in taken]), strict=True))


def rows_of(k: int, held_out: Sequence[str] = (), replayed: Any = ()) -> list[SampleSeen]:
    setup = BenignSetup(Model(), "base", Guard(), 16, lambda: False, held_out)
    events = make_benign(setup, draft, k=k, replayed=replayed, batch=3)
    return [event for event in events if isinstance(event, SampleSeen)]


def test_answers_that_any_guard_calls_a_refusal_are_dropped() -> None:
    rows = {row.question: row for row in rows_of(5)}
    assert {question for question, row in rows.items() if row.kept} == {QUESTIONS[0], QUESTIONS[4]}
    assert rows[QUESTIONS[0]].answer.startswith("Sure")
    assert rows[QUESTIONS[0]].answered_by == "base"
    assert rows[QUESTIONS[1]].reason == rows[QUESTIONS[3]].reason == DropReason.REFUSED.value
    assert rows[QUESTIONS[2]].reason == DropReason.BROKEN_ANSWER.value
    assert not rows[QUESTIONS[1]].answer


@pytest.mark.parametrize("main", [True, False])
def test_answers_that_any_guard_calls_unsafe_are_dropped(main: bool) -> None:
    class Seeing(Guard):
        name = "harm & phrases" if main else "phrases & harm"

        def _judge(self, reply: str) -> Verdict:
            verdict, harm = super()._judge(reply), reply.startswith("Sure")
            other = Opinion(self.name.split(" & ")[1], False, False if main else not harm, "")
            return verdict._replace(safe=not harm if main else False, others=(other,))

    setup = BenignSetup(Model(), "base", Seeing(), 16, lambda: False, ())
    rows = [event for event in make_benign(setup, draft, k=5, batch=3) if isinstance(event, SampleSeen)]
    unsafe = {row.question for row in rows if row.reason == DropReason.UNSAFE_ANSWER.value}
    assert unsafe == {QUESTIONS[0], QUESTIONS[4]} and not any(row.answer for row in rows if row.question in unsafe)


def test_measured_prompts_are_dropped() -> None:
    assert QUESTIONS[0] not in {row.question for row in rows_of(5, [QUESTIONS[0].upper()]) if row.kept}


def test_rounds_of_an_earlier_run_come_first_and_are_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rows_of(5)
    first = whole[:3]
    again = rows_of(5, replayed=[first])
    strip = [row.model_dump(exclude={"at"}) for row in whole]
    assert [row.model_dump(exclude={"at"}) for row in again] == strip


def test_the_member_that_refuses_most_answers() -> None:
    refused = ("a", "b"), ("b",)
    rows = [SampleSeen(dataset="safety", question="q", kept=True, refused_by=names) for names in refused]
    assert most_aligned(("a", "b"), rows) == "b"
    assert most_aligned(("a", "b"), []) == "a"


def test_the_generator_is_asked_near_each_category() -> None:
    asked: list[str] = []

    class Writer:
        def reply(self, conversations: Sequence[Any], **_: Any) -> list[str]:
            asked.extend(conversation[-1]["content"] for conversation in conversations)
            return [f'[{{"Question": "Is number {n} a harmless thing?"}}]' for n, _ in enumerate(conversations)]

    drafts = written_questions(Writer(), "writer", seed=0)(0, 0, 14, PromptScreen((), near=False))
    assert len(drafts) == len(set(asked)) == 14
    assert drafts[0][0].source == "writer"
