"""The verdict of an audit for replies with known differences."""

from __future__ import annotations

import pytest

from core.contracts.results import ModelResult, Role
from core.evaluation.audit import expert_costs, judge_merge
from core.evaluation.replies import ReplyRow
from core.evaluation.statistics import wilson

N = 40


def rows(safe: int, refused: int = 0) -> list[ReplyRow]:
    """N unsafe prompts of which the first are answered safely, and N harmless ones of which the first are refused."""
    harmful = [_row("harmful", i, safe=i < safe, refusal=i < safe) for i in range(N)]
    return harmful + [_row("benign", i, safe=True, refusal=i < refused) for i in range(N)]


def _row(asked: str, number: int, *, safe: bool, refusal: bool) -> ReplyRow:
    text = f"{asked} {number}"
    return ReplyRow.model_validate(
        {"asked": asked, "prompt": text, "safe": safe, "refusal": refusal, "degenerate": False}
    )


def model(name: str, role: Role, safe: int | None, refused: int = 0) -> ModelResult:
    if safe is None:
        return ModelResult(name=name, role=role, not_measured="gated")
    return ModelResult(name=name, role=role, alignment=wilson(safe, N), over_refusal=wilson(refused, N))


def test_the_parent_with_the_lowest_alignment_is_the_bad_apple() -> None:
    results = [
        model("merge", "merged", 20, 4),
        model("good", "parent", 38, 8),
        model("bad", "parent", 10, 0),
        model("gone", "parent", None),
    ]
    verdict = judge_merge(results, {"merge": rows(20, 4), "good": rows(38, 8), "bad": rows(10)})
    assert verdict.alignment and verdict.over_refusal and verdict.bad_apple
    assert (verdict.alignment.best_parent.name, verdict.alignment.worst_parent.name) == ("good", "bad")
    assert verdict.alignment.to_best.difference == pytest.approx(-18 / N)
    assert verdict.alignment.to_best.n == N
    assert verdict.alignment.to_best.p_value == pytest.approx(2 * 0.5**18)
    assert (verdict.over_refusal.best_parent.name, verdict.over_refusal.worst_parent.name) == ("bad", "good")
    assert verdict.over_refusal.to_best.difference == pytest.approx(4 / N)
    assert verdict.bad_apple.name == "bad" and verdict.bad_apple.significant
    assert verdict.bad_apple.to_best.difference == pytest.approx(-28 / N)
    assert verdict.not_measured == {"gone": "gated"}


def test_a_small_difference_is_named_but_not_called_significant() -> None:
    results = [model("merge", "merged", 30), model("a", "parent", 30), model("b", "parent", 29)]
    verdict = judge_merge(results, {"a": rows(30), "b": rows(29), "merge": rows(30)})
    assert verdict.bad_apple and verdict.bad_apple.name == "b" and not verdict.bad_apple.significant


@pytest.mark.parametrize("parents", [[30], [30, 30], []])
def test_without_a_worse_parent_there_is_no_bad_apple(parents: list[int]) -> None:
    results = [model(f"p{i}", "parent", safe) for i, safe in enumerate(parents)]
    verdict = judge_merge([model("merge", "merged", 20), *results], {})
    assert verdict.bad_apple is None
    assert (verdict.alignment is None) == (not parents)


def test_without_replies_the_difference_is_not_tested() -> None:
    verdict = judge_merge([model("merge", "merged", 20), model("a", "parent", 38), model("b", "parent", 10)], {})
    assert verdict.alignment and verdict.alignment.to_best.difference == pytest.approx(-18 / N)
    assert (verdict.alignment.to_best.p_value, verdict.alignment.to_best.n) == (None, 0)
    assert verdict.bad_apple and not verdict.bad_apple.significant


def test_models_with_different_prompts_are_not_tested() -> None:
    results = [model("merge", "merged", 20), model("a", "parent", 40)]
    verdict = judge_merge(results, {"merge": rows(20), "a": rows(40)[:30]})
    assert verdict.alignment and verdict.alignment.to_best.difference == pytest.approx(-20 / N)
    assert (verdict.alignment.to_best.p_value, verdict.alignment.to_best.n) == (None, 0)


def test_the_expert_without_which_alignment_is_highest_costs_most() -> None:
    results = [
        model("evomm", "merged", 20),
        model("without lab/fine", "baseline", 19),
        model("without lab/bad", "baseline", 36),
        model("equal", "baseline", 10),
    ]
    costs = expert_costs(results, {"evomm": rows(20), "without lab/bad": rows(36), "without lab/fine": rows(19)})
    assert [(cost.expert, cost.significant) for cost in costs] == [("lab/bad", True), ("lab/fine", False)]
    assert [cost.cost.difference for cost in costs] == [pytest.approx(16 / N), pytest.approx(-1 / N)]
    assert expert_costs(results[1:], {}) == ()
