"""McNemar's test against values calculated by hand."""

from __future__ import annotations

import pytest

from core.errors import DataError
from core.evaluation.paired_tests import Paired, compare_paired, difference_interval


def test_counts_what_changed_and_gives_the_exact_binomial_p_value() -> None:
    first = [True] * 5 + [False] * 5
    second = [True] * 5 + [True] * 5

    paired = compare_paired(first, second)

    assert (paired.n, paired.gained, paired.lost, paired.difference) == (10, 5, 0, 0.5)
    assert paired.p_value == pytest.approx(2 * 0.5**5)
    assert not paired.significant


def test_a_clear_difference_is_significant_and_its_sign_follows_the_order() -> None:
    first, second = [True] * 20, [False] * 12 + [True] * 8

    assert compare_paired(first, second).significant
    assert compare_paired(first, second).difference == -compare_paired(second, first).difference


def test_equal_answers_have_p_one() -> None:
    assert compare_paired([True, False], [True, False]).p_value == 1.0


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_unpaired_answers_are_refused(first: list[bool], second: list[bool]) -> None:
    with pytest.raises(DataError) as caught:
        compare_paired(first, second)
    assert caught.value.code == "unpaired-replies"


def test_the_interval_of_a_difference_is_agresti_and_mins() -> None:
    assert difference_interval(Paired(10, 9, 0, 0.004)) == pytest.approx((0.4556, 1.0), abs=1e-4)
    assert difference_interval(Paired(98, 12, 4, 0.08)) == pytest.approx((0.0007, 0.1593), abs=1e-4)


def test_the_interval_holds_the_difference_and_stays_within_bounds() -> None:
    for paired in (Paired(1, 1, 0, 1.0), Paired(1, 0, 1, 1.0), Paired(500, 500, 0, 0.0), Paired(3, 0, 0, 1.0)):
        low, high = difference_interval(paired)
        assert -1.0 <= low <= paired.difference <= high <= 1.0
