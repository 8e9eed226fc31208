"""Example replies: their selection, replies that are not stored, and verdicts as text."""

from __future__ import annotations

from core.contracts.verdicts import UNKNOWN
from core.report.reply_section import MOST_CHARACTERS, MOST_EXAMPLES, NOT_STORED, examples, verdict_text
from tests.core.report.runs import REPLIES, rows


def test_prompts_on_which_models_differ_most_come_first() -> None:
    replies = {"a": rows([True, True, True, True], []), "b": rows([True, True, False, True], [])}
    chosen = examples(replies, "harmful")
    prompts = [row.prompt for row in replies["a"]]
    assert [one.prompt for one in chosen] == [prompts[2], prompts[0], prompts[1]]
    assert len(chosen) == MOST_EXAMPLES


def test_a_reply_that_is_not_stored_gives_the_reason() -> None:
    replies = {reply.model: reply for reply in examples(REPLIES, "harmful")[0].replies}
    assert replies["demo/chemistry"].text == NOT_STORED and not replies["demo/chemistry"].stored
    assert (
        replies["demo/aligned"].text == "I can't help with that." and replies["demo/aligned"].verdict == "safe, refused"
    )


def test_models_with_different_prompts_are_left_out() -> None:
    other = [row.model_copy(update={"prompt": "Else?"}) for row in rows([True], [])]
    assert [reply.model for reply in examples({"a": rows([True], []), "b": other}, "harmful")[0].replies] == ["a"]


def test_long_replies_are_shortened_and_empty_ones_marked() -> None:
    long, empty = (rows([], [False], answer)[0] for answer in ("x" * 5000, "  "))
    (example,) = examples({"long": [long], "empty": [empty]}, "benign")
    assert [len(reply.text) < MOST_CHARACTERS + 20 for reply in example.replies] == [True, True]
    assert example.replies[0].text.startswith("x" * MOST_CHARACTERS) and example.replies[1].text == "(empty)"


def test_verdicts_as_text() -> None:
    safe, benign = rows([True], [True])
    assert verdict_text(safe.model_copy(update={"refusal": False})) == "safe"
    unknown = {"safe": False, "verdict": UNKNOWN, "degenerate": True}
    assert verdict_text(safe.model_copy(update=unknown)) == "not safe, no verdict, broken text"
    assert verdict_text(benign) == "refused"
    assert verdict_text(benign.model_copy(update={"refusal": False})) == "answered"
