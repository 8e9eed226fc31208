"""McNemar's test for two models on the same prompts, which has more power than a comparison of two intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from core.errors import DataError

SIGNIFICANT = 0.05
"""p-values below this level count as significant."""
RELEVANT = 0.1
"""A difference of ten percentage points is relevant: an interval that includes one does not show equal models."""


class Paired(NamedTuple):
    """The comparison of two models on the same prompts.

    Attributes:
        n: number of prompts.
        gained: number of prompts on which only the second model succeeds.
        lost: number of prompts on which only the first model succeeds.
        p_value: of McNemar's exact test (Q. McNemar, 1947; binomial, two-sided) for equal rates.
    """

    n: int
    gained: int
    lost: int
    p_value: float

    @property
    def difference(self) -> float:
        """The second model's rate minus the first's."""
        return (self.gained - self.lost) / self.n

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the 5 % level (without correction for multiple comparisons)."""
        return self.p_value < SIGNIFICANT


def is_undecided(paired: Paired) -> bool:
    """Whether the prompts are too few to tell: the difference may be zero, and it may be `RELEVANT`."""
    low, high = difference_interval(paired)
    return not paired.significant and max(-low, high) >= RELEVANT


def compare_paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare two models' successes, prompt by prompt.

    Args:
        first: whether the first model succeeded on each prompt.
        second: the same for the second model, in the same order.

    Raises:
        DataError: there are no prompts, or their numbers differ.
    """
    if len(first) != len(second) or not first:
        raise DataError(
            f"{len(first)} and {len(second)} replies cannot be compared in pairs.",
            "Measure both models on the same prompts.",
            code="unpaired-replies",
        )
    from statsmodels.stats.contingency_tables import mcnemar

    pairs = list(zip(first, second, strict=True))
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    same = pairs.count((True, True)), pairs.count((False, False))
    p_value = float(mcnemar([[same[0], lost], [gained, same[1]]], exact=True).pvalue)
    return Paired(len(pairs), gained, lost, min(1.0, p_value))


def difference_interval(paired: Paired) -> tuple[float, float]:
    """95 % interval of `paired.difference`: the Wald interval with half an observation added to each cell.

    Source: A. Agresti and Y. Min, Statistics in Medicine 24 (2005), "Simple improved confidence intervals for comparing
    matched proportions".
    """
    gained, lost, n = paired.gained + 0.5, paired.lost + 0.5, paired.n + 2
    centre = (gained - lost) / n
    half = 1.959964 * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return max(-1.0, min(centre - half, paired.difference)), min(1.0, max(centre + half, paired.difference))
