"""Another alpha without another search: both losses of every candidate are kept, so an alpha is only a new ranking.

Pure functions over anything that carries `ce_safety` and `ce_expert` (nats per token), such as `CandidateScored`, and
the hypervolume of a set of losses, which says how far a front has come.
Candidates without both losses, failed ones or those of a search on domain data alone, are left out.
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


def rank(candidates: Iterable[Candidate], alpha: float) -> list[Candidate]:
    """Candidates by `CE_safety + alpha * CE_expert` (paper Eqs. 4 and 5), lowest first.

    Of equals the one with the lower safety loss comes first, then the lower domain loss, then the earlier one. So the
    first is always on the Pareto front.

    Raises:
        SpecError: alpha is negative or not finite.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise SpecError(f"Alpha is {alpha}.", "Alpha weighs the domain loss: give a number from 0 upwards.")
    by_objective = sorted(_with_losses(candidates), key=lambda item: (item[0] + alpha * item[1], *item[:2]))
    return [candidate for _, _, candidate in by_objective]


def pareto_front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates that no other beats in one loss without being worse in the other, lowest safety loss first.

    Of candidates with the same two losses the first stands for all.
    """
    front: list[Candidate] = []
    lowest_expert = math.inf
    for _, expert, candidate in sorted(_with_losses(candidates), key=lambda item: item[:2]):
        if expert < lowest_expert:
            front.append(candidate)
            lowest_expert = expert
    return front


def hypervolume(points: Iterable[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area of the losses, up to `reference`, that some of the points is at least as good as (nats squared).

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
