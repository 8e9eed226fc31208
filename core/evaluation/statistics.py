"""Intervals for shares: every rate that is shown carries one."""

from __future__ import annotations

from core.contracts.results import Rate
from core.errors import DataError


def wilson(successes: int, n: int) -> Rate:
    """A share with its 95 % Wilson score interval (E. B. Wilson, 1927).

    Args:
        successes: trials that succeeded, 0 to `n`.
        n: trials.

    Raises:
        DataError: no trials, or more successes than trials.
    """
    if n <= 0:
        raise DataError("A rate over no replies is undefined.", "Give at least one prompt.")
    if not 0 <= successes <= n:
        raise DataError(f"{successes} of {n} is not a share.", "Count each trial once.")
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=0.05, method="wilson")
    return Rate(rate=successes / n, low=min(float(low), successes / n), high=max(float(high), successes / n), n=n)
