"""A guard that gives up: every place that asks one ends in an error with advice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from core.contracts.verdicts import Verdict
from core.data.columns import Mapped
from core.data.import_pairs import read_pairs
from core.data.opened_source import OpenedSource
from core.data.prompts import Prompt
from core.data.refusals import Asking, collect_refusals
from core.data.training_pairs import Sample
from core.errors import GuardError
from core.evaluation.alignment import judge_alignment
from core.guards.panel import GuardPanel
from core.guards.phrases import PhrasesGuard
from core.guards.protocol import judge_replies
from tests.core.data.fake_models import REFUSAL, never, refuser

LATE = "slow did not answer in time"


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


def test_a_guard_that_does_not_answer_in_time_is_named_with_a_way_on() -> None:
    with pytest.raises(GuardError, match=LATE) as caught:
        judge_replies(Slow(), [("How?", REFUSAL)])
    assert "resumed" in caught.value.hint
    with pytest.raises(GuardError, match="phrases & slow did not answer"):
        judge_replies(GuardPanel(PhrasesGuard(), (Slow(),)), [("How?", REFUSAL)])
    with pytest.raises(GuardError, match="0 verdicts for 1 replies"):
        judge_replies(Lazy(), [("How?", REFUSAL)])


def test_generated_imported_and_measured_replies_are_judged_so() -> None:
    with pytest.raises(GuardError, match=LATE):
        collect_refusals(Asking({"m": refuser()}, Slow(), 8, 0), ["How?"], never)
    material = OpenedSource("rows", True, iter([Mapped(Sample("How?", REFUSAL), stem="How?")]))
    with pytest.raises(GuardError, match=LATE):
        list(read_pairs(material, "safety", k=1, held_out=(), guard=Slow()))
    with pytest.raises(GuardError, match=LATE):
        judge_alignment([Prompt("How?")], [REFUSAL], Slow())
