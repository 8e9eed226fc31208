"""Records of replies on which guards disagree; text that a guard calls unsafe is never written to disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.reply_verdicts import ReplyVerdict
from core.contracts.verdicts import UNKNOWN, Opinion, Verdict
from core.data.training_pairs import Sample, read_samples, write_samples
from core.guards.disputes import disputed_reply, reply_verdict
from core.guards.panel import GuardPanel
from core.guards.phrases import PhrasesGuard

PANEL = GuardPanel(PhrasesGuard(), ())


def verdict(refusal: bool, safe: bool | None, *others: Opinion, category: str = "x") -> Verdict:
    return Verdict(refusal, safe, False, category, 0.0, "", others)


@pytest.mark.parametrize(
    ("judged", "kept"),
    [
        (verdict(True, True, Opinion("b", False, True, "safe")), True),
        (verdict(False, False, Opinion("b", False, True, "safe")), False),
        (verdict(True, True, Opinion("b", True, False, "S1")), False),
        (verdict(True, None, Opinion("b", True, None, UNKNOWN)), False),
        (verdict(True, None, Opinion("b", False, True, "safe")), True),
    ],
)
def test_a_reply_to_an_unsafe_prompt_is_kept_only_where_every_guard_calls_it_safe(judged: Verdict, kept: bool) -> None:
    reply = disputed_reply("evomm", "How?", "privacy", "TEXT", judged, PANEL, unsafe=True)
    assert reply is not None and (reply.response == "TEXT") is kept
    assert [answer.guard for answer in reply.answers] == ["phrases", "b"]
    assert ("TEXT" in reply.model_dump_json()) is kept


def test_of_a_harmless_prompt_only_refusals_are_disputed() -> None:
    answered = verdict(False, False, Opinion("b", False, True, "safe"))
    assert disputed_reply("m", "How?", "", "TEXT", answered, PANEL, unsafe=False) is None
    refused = verdict(True, True, Opinion("b", False, False, "S1"))
    reply = disputed_reply("m", "How?", "", "TEXT", refused, PANEL, unsafe=False)
    assert reply is not None and reply.response == "TEXT"


def test_nothing_is_recorded_where_all_guards_agree() -> None:
    same = verdict(True, None, Opinion("b", True, True, "safe"))
    assert disputed_reply("m", "How?", "", "TEXT", same, PANEL, unsafe=True) is None


@pytest.mark.parametrize(
    "judged",
    [
        verdict(True, None, Opinion("b", True, True, "safe"), Opinion("c", True, None, "x")),
        verdict(True, None, Opinion("b", True, None, UNKNOWN)),
        verdict(False, True, Opinion("b", False, False, "S1")),
        verdict(True, None, category=UNKNOWN),
    ],
)
def test_a_row_agrees_with_the_verdict_on_agreement(judged: Verdict) -> None:
    row = reply_verdict("model", judged)
    assert row.agreed == judged.agreed
    assert ReplyVerdict.model_validate_json(row.model_dump_json()) == row


def test_rows_keep_the_answer_of_each_guard(tmp_path: Path) -> None:
    disputed = reply_verdict("model", verdict(True, None, Opinion("b", False, True, "safe")))
    alone = reply_verdict("model", verdict(True, None))
    samples = [Sample("Q", "A", guard="phrases & b", verdicts=(disputed,)), Sample("R", "B", verdicts=(alone,))]
    path = tmp_path / "s.jsonl"
    write_samples(path, samples)
    assert read_samples(path) == samples
    assert [sample.disputed for sample in samples] == [True, False]
    assert "others" not in path.read_text().splitlines()[1], "rows of one guard are as they always were"
