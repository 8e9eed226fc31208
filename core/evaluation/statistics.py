"""Confidence intervals of rates."""

from __future__ import annotations

from core.contracts.results import Rate
from core.errors import DataError


def wilson(successes: int, n: int) -> Rate:
    """A rate with its 95 % Wilson score interval (E. B. Wilson, 1927).

    Args:
        successes: number of successful trials, 0 to `n`.
        n: number of trials.

    Raises:
        DataError: there are no trials, or more successes than trials.
    """
    if n <= 0:
        raise DataError("A rate over no replies is undefined.", "Give at least one prompt.", code="no-trials")
    if not 0 <= successes <= n:
        raise DataError(f"{successes} of {n} is not a rate.", "Count each trial once.", code="not-a-rate")
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=0.05, method="wilson")
    return Rate(rate=successes / n, low=min(float(low), successes / n), high=max(float(high), successes / n), n=n)
