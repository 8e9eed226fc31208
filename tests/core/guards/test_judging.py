"""A guard that does not answer in time: every caller raises an error with a hint."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from core.contracts.verdicts import Verdict
from core.data.columns import MappedRow
from core.data.import_pairs import read_pairs
from core.data.opened_source import OpenedSource
from core.data.prompts import Prompt
from core.data.refusals import RefusalSetup, collect_refusals
from core.data.training_pairs import Sample
from core.errors import GuardError
from core.evaluation.alignment import judge_alignment
from core.guards.panel import GuardPanel
from core.guards.phrases import PhrasesGuard
from core.guards.protocol import judge_replies
from tests.core.data.fake_models import REFUSAL, never, refuser


class Slow:
    """A guard that never answers."""

    name = "slow"

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        raise TimeoutError("read timed out")


class Lazy:
    """A guard that judges nothing."""

    name = "lazy"

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        return []


def test_a_guard_that_does_not_answer_in_time_is_an_error() -> None:
    with pytest.raises(GuardError) as caught:
        judge_replies(Slow(), [("How?", REFUSAL)])
    assert caught.value.code == "guard-timeout" and "slow" in caught.value.message and caught.value.hint
    with pytest.raises(GuardError) as caught:
        judge_replies(GuardPanel(PhrasesGuard(), (Slow(),)), [("How?", REFUSAL)])
    assert caught.value.code == "guard-timeout" and "phrases & slow" in caught.value.message
    with pytest.raises(GuardError) as caught:
        judge_replies(Lazy(), [("How?", REFUSAL)])
    assert caught.value.code == "verdicts-missing"


def test_generated_imported_and_measured_replies_raise_it() -> None:
    with pytest.raises(GuardError) as generated:
        collect_refusals(RefusalSetup({"m": refuser()}, Slow(), 8, 0), ["How?"], never)
    source = OpenedSource("rows", True, iter([MappedRow(Sample("How?", REFUSAL), stem="How?")]))
    with pytest.raises(GuardError) as imported:
        list(read_pairs(source, "safety", k=1, held_out=(), guard=Slow()))
    with pytest.raises(GuardError) as measured:
        judge_alignment([Prompt("How?")], [REFUSAL], Slow())
    assert {caught.value.code for caught in (generated, imported, measured)} == {"guard-timeout"}
