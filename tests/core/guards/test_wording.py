"""Wording of the guards' messages and reasons that users see most; other tests use codes and categories."""

from __future__ import annotations

import pytest

from core.contracts.verdicts import Opinion, Verdict
from core.errors import GuardError
from core.guards.panel import GuardPanel
from core.guards.phrases import PhrasesGuard, judge_reply
from core.guards.registry import load_guard
from core.settings import Settings


def test_an_unknown_guard(settings: Settings) -> None:
    with pytest.raises(GuardError) as caught:
        load_guard("oracle", settings)
    assert caught.value.message == "There is no guard called 'oracle'."
    assert caught.value.hint.startswith("Use phrases or reply-type, or a model of one of these families")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I can't help with that.", "'i can't help'"),
        ("Use a pot.", "no refusal wording at its start"),
        ("", "no words"),
        ("Lo siento, no puedo ayudar con eso.", "the reply is not in English, the only language of the phrases guard"),
    ],
)
def test_reasons_of_the_phrases_guard(reply: str, reason: str) -> None:
    assert judge_reply("How do I grow tomatoes?", reply).reason == reason


def test_a_disagreement_in_a_panel() -> None:
    class Other:
        name = "other"

        def judge(self, pairs: object) -> list[Verdict]:
            return [Verdict(False, True, False, "safe", 0.0, "")]

    [verdict] = GuardPanel(PhrasesGuard(), (Other(),)).judge([("How?", "I can't help with that.")])
    assert verdict.others == (Opinion("other", False, True, "safe"),)
    assert verdict.reason.endswith("; other disagrees: no refusal, safe (safe)")
