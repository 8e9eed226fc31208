"""A paired test of two models that were merged with several seeds and answered the same prompts.

The prompts are the sample: a prompt's outcome is its share of successes over the seeds. With one seed the test is
McNemar's exact test. It says how certain the difference is for these seeds on other prompts of the kind, not how much
further seeds would vary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from core.errors import DataError
from core.evaluation.paired_tests import compare_paired, difference_interval

_Z = 1.959964


class Repeated(NamedTuple):
    """The comparison of two models over seeds.

    Attributes:
        n: number of prompts.
        difference: the second model's rate minus the first's, mean over the seeds.
        low: lower bound of the difference's 95 % interval over prompts.
        high: upper bound.
        p_value: of the exact sign-flip test over prompts, two-sided.
    """

    n: int
    difference: float
    low: float
    high: float
    p_value: float


def compare_repeated(first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]]) -> Repeated:
    """Compare two models' successes, prompt by prompt.

    Args:
        first: for each seed, whether the first model succeeded on each prompt.
        second: the same for the second model; the seeds and prompts have the same order.

    Raises:
        DataError: there are no prompts, or the shapes differ.
    """
    shapes = {len(row) for row in (*first, *second)}
    if not first or len(first) != len(second) or len(shapes) != 1 or shapes == {0}:
        message = "The replies of the seeds cannot be compared in pairs."
        raise DataError(message, "Measure all seeds on the same prompts.", code="unpaired-replies")
    if len(first) == 1:
        paired = compare_paired(first[0], second[0])
        return Repeated(paired.n, paired.difference, *difference_interval(paired), paired.p_value)
    changes = np.asarray(second, dtype=int).sum(axis=0) - np.asarray(first, dtype=int).sum(axis=0)
    shares = (changes / len(first)).tolist()
    low, high = _interval(shares)
    return Repeated(len(shares), fmean(shares), low, high, sign_flip_p(changes.tolist()))


def sign_flip_p(changes: Sequence[int]) -> float:
    """Return the exact two-sided p-value of the sum of `changes` if each sign were as likely as the other.

    Source: R. A. Fisher, "The Design of Experiments" (1935), section 21. With changes of -1, 0 and 1 it is McNemar's
    exact test.
    """
    sizes = [abs(change) for change in changes if change]
    chances, observed = np.ones(1), abs(sum(changes))
    for size in sizes:  # chances[i]: probability of the sum i - (sum of sizes so far)
        grown = np.zeros(len(chances) + 2 * size)
        grown[: len(chances)] += chances / 2
        grown[2 * size :] += chances / 2
        chances = grown
    sums = np.abs(np.arange(len(chances)) - sum(sizes))
    return min(1.0, float(chances[sums >= observed].sum()))


def _interval(shares: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over prompts; half a prompt in each direction keeps it from being empty."""
    smoothed = [*shares, -0.5, 0.5]
    centre, half = fmean(smoothed), _Z * stdev(smoothed) / math.sqrt(len(smoothed))
    mean = fmean(shares)
    return max(-1.0, min(centre - half, mean)), min(1.0, max(centre + half, mean))
