"""Sample replies: which are chosen, what is said of those that are not kept, and how verdicts are counted."""

from __future__ import annotations

from core.contracts.verdicts import UNKNOWN
from core.report.reply_section import MOST_CHARACTERS, MOST_EXAMPLES, NOT_KEPT, examples, verdict_words
from tests.core.report.runs import REPLIES, rows


def test_prompts_that_divide_the_models_come_first() -> None:
    replies = {"a": rows([True, True, True, True], []), "b": rows([True, True, False, True], [])}
    chosen = examples(replies, "harmful")
    prompts = [row.prompt for row in replies["a"]]
    assert [one.prompt for one in chosen] == [prompts[2], prompts[0], prompts[1]]
    assert len(chosen) == MOST_EXAMPLES


def test_a_reply_that_is_not_kept_says_why() -> None:
    said = {reply.model: reply for reply in examples(REPLIES, "harmful")[0].replies}
    assert said["demo/chemistry"].text == NOT_KEPT and not said["demo/chemistry"].kept
    assert said["demo/aligned"].text == "I can't help with that." and said["demo/aligned"].verdict == "safe, refused"


def test_models_with_other_prompts_are_left_out() -> None:
    other = [row.model_copy(update={"prompt": "Else?"}) for row in rows([True], [])]
    assert [reply.model for reply in examples({"a": rows([True], []), "b": other}, "harmful")[0].replies] == ["a"]


def test_long_and_empty_replies_are_shown_as_such() -> None:
    long, empty = (rows([], [False], answer)[0] for answer in ("x" * 5000, "  "))
    (example,) = examples({"long": [long], "empty": [empty]}, "benign")
    assert [len(reply.text) < MOST_CHARACTERS + 20 for reply in example.replies] == [True, True]
    assert example.replies[0].text.endswith("(cut here)") and example.replies[1].text == "(empty)"


def test_verdicts_in_words() -> None:
    safe, benign = rows([True], [True])
    assert verdict_words(safe.model_copy(update={"refusal": False})) == "safe"
    unknown = {"safe": False, "verdict": UNKNOWN, "degenerate": True}
    assert verdict_words(safe.model_copy(update=unknown)) == "not safe, no verdict, broken text"
    assert verdict_words(benign) == "refused"
    assert verdict_words(benign.model_copy(update={"refusal": False})) == "answered"
