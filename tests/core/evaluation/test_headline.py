"""The headline of a run, and when its prompts are too few to tell two models apart."""

from __future__ import annotations

import pytest

from core.contracts.results import ModelResult, Role
from core.evaluation.headline import headline_of
from core.evaluation.paired_tests import compare_paired, is_undecided
from core.evaluation.replies import ReplyRow
from core.evaluation.statistics import wilson


def _rows(safe: int, n: int) -> list[ReplyRow]:
    return [
        ReplyRow(asked="harmful", prompt=str(i), safe=i < safe, refusal=i < safe, degenerate=False) for i in range(n)
    ]


def _model(name: str, role: Role, safe: int, n: int = 56) -> ModelResult:
    return ModelResult(name=name, role=role, alignment=wilson(safe, n))


@pytest.mark.parametrize(
    ("first", "second", "n", "undecided"),
    [(13, 9, 14, True), (14, 14, 14, True), (53, 7, 56, False), (540, 538, 560, False), (28, 20, 28, False)],
)
def test_few_prompts_do_not_show_that_models_are_equal(first: int, second: int, n: int, undecided: bool) -> None:
    paired = compare_paired([i < first for i in range(n)], [i < second for i in range(n)])
    assert is_undecided(paired) is undecided


def test_the_merge_stands_beside_its_best_parent_and_the_domain_only_search() -> None:
    counts: list[tuple[str, Role, int]] = [
        ("bad", "parent", 6),
        ("good", "parent", 53),
        ("equal", "baseline", 43),
        ("evomm_expert_only", "baseline", 7),
        ("evomm", "merged", 47),
    ]
    models = [_model(*count) for count in counts]
    headline = headline_of(models, {name: _rows(safe, 56) for name, _, safe in counts})
    assert headline and headline.parent and headline.other and headline.to_other and headline.to_parent
    assert (headline.merge.name, headline.parent.name, headline.other.name) == ("evomm", "good", "evomm_expert_only")
    assert headline.to_other.significant and headline.to_other.difference == pytest.approx(40 / 56)
    assert headline.to_parent.difference == pytest.approx(-6 / 56)
    assert headline.to_parent.low is not None and headline.to_parent.low < -6 / 56 < (headline.to_parent.high or 0)


def test_what_was_not_measured_is_left_out() -> None:
    assert headline_of([_model("good", "parent", 53)], {}) is None
    alone = headline_of([_model("evomm", "merged", 47), ModelResult(name="gone", role="parent")], {})
    assert alone and alone.parent is None and alone.other is None
    plain = headline_of([_model("evomm", "merged", 47), _model("equal", "baseline", 43)], {})
    assert plain and plain.other and plain.other.name == "equal"
    assert plain.to_other and plain.to_other.p_value is None and not plain.to_other.undecided
