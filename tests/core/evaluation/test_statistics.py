"""Wilson intervals against published values and at the edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.evaluation.statistics import wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe (1998), Table I, method 3: the score interval without continuity correction.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    rate = wilson(successes, n)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=5e-5)
    assert (rate.rate, rate.n) == (successes / n, n)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_holds_the_rate_and_stays_in_the_unit_range(counts: tuple[int, int]) -> None:
    rate = wilson(*counts)
    assert 0.0 <= rate.low <= rate.rate <= rate.high <= 1.0
    assert rate.high - rate.low > 0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (1, 0), (3, 2), (-1, 5), (0, -1)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(DataError) as caught:
        wilson(successes, n)
    assert caught.value.code == ("no-trials" if n <= 0 else "not-a-rate")
