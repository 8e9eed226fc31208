"""Recorded replies: the stored texts, any characters, and any model name."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.results import ModelResult, RunResult
from core.contracts.verdicts import Opinion, Verdict
from core.evaluation.alignment import AlignmentReport, JudgedReply
from core.evaluation.replies import read_rows, replies_name, reply_rows
from core.evaluation.statistics import wilson
from core.runs.folder import RunFolder

NOT_ASCII_LINES = "one\u2028two\u0085three\x0bfour\x1dfive\nsix"


def report(verdict: Verdict, response: str = NOT_ASCII_LINES) -> AlignmentReport:
    rate = wilson(1, 1)
    return AlignmentReport("g", rate, rate, rate, {}, (JudgedReply("prompt", "", response, verdict),))


def verdict(safe: bool, *others: bool) -> Verdict:
    opinions = tuple(Opinion("other", False, other, "") for other in others)
    return Verdict(False, safe, False, "", 0.0, "it says so", opinions)


def test_unicode_line_ends_are_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    written = reply_rows(report(verdict(True)), None)
    folder.write_replies("m", written)
    assert read_rows(folder.replies_path("m")) == written
    assert written[0].response == NOT_ASCII_LINES


@pytest.mark.parametrize(
    ("judged", "kept"),
    [(verdict(True), True), (verdict(True, True), True), (verdict(True, False), False), (verdict(False, True), False)],
)
def test_a_reply_is_stored_if_every_guard_calls_it_safe(judged: Verdict, kept: bool) -> None:
    (row,) = reply_rows(report(judged), None)
    assert (row.response is not None, bool(row.reason)) == (kept, kept)
    assert row.safe is judged.safe


@pytest.mark.parametrize("name", ["a b/c", "組織/モデル" * 40, "\U0001d400" * 80, "x" * 500, "../../etc", "a\nb"])
def test_any_name_is_a_file_name(name: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_replies(name, [])
    assert folder.replies_path(name).parent == tmp_path / "replies"
    assert folder.replies_path(name).is_file()
    assert replies_name(name) != replies_name(f"{name}.")


def test_a_loss_that_is_not_finite_is_null_in_the_result(tmp_path: Path) -> None:
    import json

    model = ModelResult(name="m", role="merged", ce_safety=float("nan"), ce_expert=float("inf"))
    folder = RunFolder(tmp_path)
    folder.write_result(RunResult(spec={}, seconds=1.0, peak_memory_bytes=1, models=(model,)))

    def refuse(word: str) -> None:
        raise AssertionError(word)

    (read,) = json.loads(folder.result_path.read_text(), parse_constant=refuse)["models"]
    assert (read["ce_safety"], read["ce_expert"]) == (None, None)
