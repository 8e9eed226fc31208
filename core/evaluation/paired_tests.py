"""Two models on the same prompts: McNemar's test, so that "better" means more than two intervals side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from core.errors import DataError

SIGNIFICANT = 0.05
"""p-values below it are marked."""


class Paired(NamedTuple):
    """How the answers of two models to the same prompts differ.

    Attributes:
        n: prompts that both were put.
        gained: prompts on which the second model succeeds and the first does not.
        lost: prompts on which the first succeeds and the second does not.
        p_value: of McNemar's exact test (Q. McNemar, 1947; binomial, two-sided) that both are as good.
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
        """Whether the difference is more than chance at the 5 % level (no correction for several comparisons)."""
        return self.p_value < SIGNIFICANT


def compare_paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare two models' successes, prompt by prompt.

    Args:
        first: whether the first model succeeded on each prompt.
        second: the same of the second model, in the same order.

    Raises:
        DataError: no prompts, or not the same number.
    """
    if len(first) != len(second) or not first:
        raise DataError(
            f"{len(first)} and {len(second)} replies cannot be compared in pairs.",
            "Measure both models on the same prompts.",
        )
    from statsmodels.stats.contingency_tables import mcnemar

    pairs = list(zip(first, second, strict=True))
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    same = pairs.count((True, True)), pairs.count((False, False))
    p_value = float(mcnemar([[same[0], lost], [gained, same[1]]], exact=True).pvalue)
    return Paired(len(pairs), gained, lost, min(1.0, p_value))


def difference_interval(paired: Paired) -> tuple[float, float]:
    """95 % interval of `paired.difference`: Wald's with half an observation more in each cell.

    Source: A. Agresti and Y. Min, Statistics in Medicine 24 (2005), "Simple improved confidence intervals for comparing
    matched proportions".
    """
    gained, lost, n = paired.gained + 0.5, paired.lost + 0.5, paired.n + 2
    centre = (gained - lost) / n
    half = 1.959964 * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return max(-1.0, min(centre - half, paired.difference)), min(1.0, max(centre + half, paired.difference))
