"""Ranks scored candidates by another alpha without another search, and measures Pareto fronts.

Pure functions over anything with `ce_safety` and `ce_expert` (nats per token), such as `CandidateScored`. Candidates
without both losses (failed ones, or those of a search on domain data alone) are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol, TypeVar

from core.errors import SpecError


class HasLosses(Protocol):
    """A candidate's losses; None where it was not scored on that set."""

    @property
    def ce_safety(self) -> float | None: ...

    @property
    def ce_expert(self) -> float | None: ...


Candidate = TypeVar("Candidate", bound=HasLosses)


def rank(candidates: Iterable[Candidate], alpha: float, beta: float = 0.0) -> list[Candidate]:
    """Candidates by `CE_safety + alpha * CE_expert` (paper Eqs. 4 and 5), lowest first.

    Where a candidate has a loss on harmless look-alikes, beta times that loss is added.

    Equal objectives are ordered by safety loss, then domain loss, then the given order. So the first candidate is
    always on the Pareto front.

    Raises:
        SpecError: alpha is negative or not finite.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        message = f"Alpha is {alpha}, but it must be a finite number from 0."
        raise SpecError(message, "Alpha weighs the domain loss; the paper uses 0.3.", code="bad-alpha")
    by_objective = sorted(
        _with_losses(candidates),
        key=lambda item: (item[0] + alpha * item[1] + beta * (getattr(item[2], "ce_benign", None) or 0.0), *item[:2]),
    )
    return [candidate for _, _, candidate in by_objective]


def pareto_front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates that no other beats in one loss without being worse in the other, lowest safety loss first.

    Of candidates with the same two losses, only the first is included.
    """
    front: list[Candidate] = []
    lowest_expert = math.inf
    for _, expert, candidate in sorted(_with_losses(candidates), key=lambda item: item[:2]):
        if expert < lowest_expert:
            front.append(candidate)
            lowest_expert = expert
    return front


def hypervolume(points: Iterable[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area of the losses up to `reference` that the points dominate (nats squared).

    Args:
        points: (safety, domain) losses; those beyond the reference add nothing.
        reference: losses that bound the area.
    """
    area, ceiling = 0.0, reference[1]
    for safety, expert in sorted(points):
        if safety < reference[0] and expert < ceiling:
            area += (reference[0] - safety) * (ceiling - expert)
            ceiling = expert
    return area


def _with_losses(candidates: Iterable[Candidate]) -> list[tuple[float, float, Candidate]]:
    return [
        (candidate.ce_safety, candidate.ce_expert, candidate)
        for candidate in candidates
        if candidate.ce_safety is not None and candidate.ce_expert is not None
    ]
