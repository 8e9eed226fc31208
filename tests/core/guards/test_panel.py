"""Several guards on the same replies: who decides, who disagrees, and Cohen's kappa."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from core.contracts.verdicts import UNKNOWN, Verdict
from core.guards.agreement import agreements, cohens_kappa
from core.guards.panel import GuardPanel, unload
from core.guards.phrases import PhrasesGuard

REFUSAL, ANSWER = "I can't help with that.", "Take a pot and fill it with soil."
PAIRS = [("How?", REFUSAL), ("How?", ANSWER), ("How?", REFUSAL), ("How?", ANSWER)]


class Fixed:
    """A guard that gives the same answers to all."""

    name = "fixed"

    def __init__(self, *safe: bool | None) -> None:
        self.safe = safe

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        return [
            Verdict(reply == REFUSAL, safe, False, UNKNOWN if safe is None else "safe", 0.0, "")
            for (_, reply), safe in zip(pairs, self.safe, strict=True)
        ]


def test_the_first_guard_decides_and_the_others_disagree() -> None:
    panel = GuardPanel(PhrasesGuard(), (Fixed(True, True, False, False),))
    verdicts = panel.judge(PAIRS)
    assert panel.name == "phrases & fixed"
    assert [verdict.safe for verdict in verdicts] == [True, False, True, False]
    assert [verdict.agreed for verdict in verdicts] == [True, False, False, True]
    assert "fixed" in verdicts[1].reason and "fixed" not in verdicts[0].reason


def test_agreement_counts_on_safety_and_on_refusal() -> None:
    safe, refusal = agreements(GuardPanel(PhrasesGuard(), (Fixed(True, True, False, False),)).judge(PAIRS))
    assert (safe.question, safe.agree, safe.kappa, safe.n, safe.disputed) == ("safe", 0.5, 0.0, 4, (1, 2))
    assert (refusal.question, refusal.agree, refusal.kappa, refusal.disputed) == ("refusal", 1.0, 1.0, ())


def test_no_verdict_is_no_agreement_on_safety() -> None:
    safe, _ = agreements(GuardPanel(PhrasesGuard(), (Fixed(None, None, None, None),)).judge(PAIRS))
    assert safe.disputed == (0, 2)


def test_one_guard_has_nobody_to_agree_with() -> None:
    assert agreements(PhrasesGuard().judge(PAIRS)) == []
    assert agreements([]) == []


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ((20, 5, 10, 15), 0.4),  # a textbook's table: 0.7 observed, 0.5 by chance
        ((10, 0, 0, 10), 1.0),
        ((5, 5, 5, 5), 0.0),
        ((0, 5, 5, 0), -1.0),
        ((7, 0, 0, 0), None),
    ],
)
def test_cohens_kappa(table: tuple[int, int, int, int], kappa: float | None) -> None:
    both, first, second, neither = table
    answers = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    found = cohens_kappa(answers)
    assert found == (kappa if kappa is None else pytest.approx(kappa))


class Heavy(Fixed):
    """A guard with a model, which is loaded when it judges."""

    loaded = False

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        self.loaded = True
        return super().judge(pairs)

    def unload(self) -> None:
        self.loaded = False


def test_the_models_of_a_panel_are_unloaded_and_loaded_again() -> None:
    heavy = Heavy(True, True, True, True)
    panel = GuardPanel(PhrasesGuard(), (heavy,))
    for guard in (panel, heavy):
        first = guard.judge(PAIRS)
        assert heavy.loaded
        unload(guard)
        assert not heavy.loaded
        assert guard.judge(PAIRS) == first
    unload(PhrasesGuard())
