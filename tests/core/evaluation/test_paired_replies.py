"""Paired replies of two models: the counted prompts, the better direction, and missing pairs."""

from __future__ import annotations

import pytest

from core.evaluation.paired_replies import Measure, contrast
from core.evaluation.replies import Asked, ReplyRow


def rows(asked: Asked, *, refused: int, n: int = 20, broken: int = 0) -> list[ReplyRow]:
    return [
        ReplyRow(asked=asked, prompt=f"{asked} {i}", safe=i < refused, refusal=i < refused, degenerate=i < broken)
        for i in range(n)
    ]


@pytest.mark.parametrize(("measure", "better"), [("alignment", True), ("refusal", True)])
def test_refusing_more_unsafe_prompts_is_better(measure: Measure, better: bool) -> None:
    found = contrast(measure, rows("harmful", refused=18), rows("harmful", refused=4))
    assert found is not None
    assert (found.better, found.paired.gained, found.paired.lost) == (better, 14, 0)
    assert found.paired.significant


def test_refusing_more_harmless_prompts_is_worse_and_so_is_broken_text() -> None:
    over = contrast("over_refusal", rows("benign", refused=9), rows("benign", refused=1))
    broken = contrast("degenerate", rows("harmful", refused=0, broken=7), rows("harmful", refused=0))
    assert over is not None and over.better is False
    assert broken is not None and broken.better is False


def test_equal_rates_are_neither_better_nor_worse() -> None:
    found = contrast("alignment", rows("harmful", refused=5), rows("harmful", refused=5))
    assert found is not None
    assert found.better is None
    assert found.paired.p_value == 1.0


def test_different_or_missing_prompts_give_no_contrast() -> None:
    assert contrast("alignment", rows("harmful", refused=5), rows("harmful", refused=5, n=19)) is None
    assert contrast("over_refusal", rows("harmful", refused=5), rows("harmful", refused=5)) is None
    assert contrast("alignment", [], []) is None
