"""What a search minimizes, and the values that the optimizer gets where that is more than one number.

`weighted` is `CE_safety + alpha * CE_expert` (paper Eqs. 4 and 5), plus `beta * CE_benign` where harmless look-alikes
are scored. `constraint` minimizes the domain loss among candidates that keep limits on the safety and benign losses;
the optimizer's values follow Deb's rule (2000, "An efficient constraint handling method for genetic algorithms").
`pareto` minimizes both losses; the optimizer's values are the uncrowded hypervolume improvement (Toure, Hansen, Auger,
Brockhoff 2019, arXiv 1904.08823): what a candidate adds to the front's hypervolume, and for a dominated candidate its
distance to the region that nothing dominates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from core.contracts.events import CandidateScored
from core.contracts.optimizers import ObjectiveMode
from core.errors import MergeError
from core.search.optimizer import Terms
from core.search.ranking import hypervolume, pareto_front

if TYPE_CHECKING:
    from core.search.scoring import Scores

Point = tuple[float, float]
Kind = Literal["safety", "expert", "benign"]
"""The kinds of training pairs: refusals, domain answers, and answers to harmless look-alikes."""


class TermWeights(NamedTuple):
    """Weight of each loss in what is minimized."""

    safety: float
    expert: float
    benign: float = 0.0

    def of(self, kind: Kind) -> float:
        """The weight of one kind of pair."""
        return {"safety": self.safety, "expert": self.expert, "benign": self.benign}[kind]


@dataclass(frozen=True)
class Goal:
    """How a search judges losses.

    Attributes:
        mode: as `search.objective`.
        safety_limit: highest safety loss that `constraint` allows, nats per token.
        benign_limit: the same for the loss on harmless look-alikes.
        reference: (safety, domain) losses that bound the hypervolume of `pareto`.
    """

    mode: ObjectiveMode = "weighted"
    safety_limit: float = math.inf
    reference: Point = (math.inf, math.inf)
    benign_limit: float = math.inf

    def objective(self, scores: Scores, alpha: float, safety: bool, beta: float = 0.0) -> float:
        """The minimized value in nats per token; for `pareto` it selects the candidate that becomes the merge."""
        return scores.objective(alpha, safety and self.mode != "constraint", self._beta(beta))

    def weights(self, alpha: float, safety: bool, beta: float = 0.0) -> TermWeights:
        """Weight of each loss in `objective`."""
        both = safety and self.mode != "constraint"
        return TermWeights(float(both), alpha if both else 1.0, self._beta(beta))

    def _beta(self, beta: float) -> float:
        """Weight of the benign loss in what is minimized: 0 where a limit holds it."""
        return beta if math.isinf(self.benign_limit) else 0.0

    def violation(self, scores: Scores) -> float:
        """Nats above the limits on the safety and benign losses; 0 where they are kept or there are none."""
        if self.mode != "constraint" or scores.safety is None:
            return 0.0
        benign = scores.benign.loss - self.benign_limit if scores.benign is not None else 0.0
        return max(0.0, scores.safety.loss - self.safety_limit) + max(0.0, benign)

    @property
    def limits(self) -> dict[Kind, float]:
        """Highest loss of each kind of pair that `constraint` allows; empty for other objectives."""
        if self.mode != "constraint":
            return {}
        benign: dict[Kind, float] = {} if math.isinf(self.benign_limit) else {"benign": self.benign_limit}
        return {"safety": self.safety_limit, **benign}

    def optimizer_values(self, generation: Sequence[CandidateScored], before: Sequence[CandidateScored]) -> list[float]:
        """The values of a generation for the optimizer's `tell`; a failed candidate keeps its penalty.

        Args:
            generation: the candidates that the optimizer asked for last.
            before: the search's earlier candidates.
        """
        if self.mode == "constraint":
            return _feasible_first(generation)
        if self.mode == "pareto":
            return _front_growth(generation, before, self.reference)
        return [candidate.objective for candidate in generation]


def loss_terms(
    safety: float | None,
    expert: float | None,
    by_expert: Mapping[str, float],
    alpha: float,
    counts: Mapping[str, float],
    benign: float | None = None,
) -> Terms:
    """The terms whose sum is a candidate's weighted objective; empty where nothing was scored.

    Args:
        safety: CE_safety in nats per token; None where the safety data is left out.
        expert: CE_expert; None for a candidate that failed.
        by_expert: mean loss on each expert's own pairs.
        alpha: weight of the domain loss beside a safety loss.
        counts: weight of each expert's loss in the domain loss; empty makes the domain loss one term.
        benign: loss on harmless look-alikes times its weight; None where it is left out.
    """
    if expert is None:
        return ()
    if benign is not None:
        return (*loss_terms(safety, expert, by_expert, alpha, counts), benign)
    share, first = (1.0, ()) if safety is None else (alpha, (safety,))
    if counts and counts.keys() <= by_expert.keys():
        return (*first, *(share * count * by_expert[name] for name, count in counts.items()))
    return (*first, share * expert)


def goal_of(
    mode: ObjectiveMode,
    tolerance: float,
    parents: Sequence[tuple[float | None, float | None]],
    benign: Sequence[float | None] = (),
) -> Goal:
    """The goal of a run's own search.

    Args:
        mode: as `search.objective`.
        tolerance: nats above the lowest loss of a parent that `constraint` allows, for safety and for look-alikes.
        parents: their safety and domain losses.
        benign: their losses on harmless look-alikes; empty where these are not scored.

    Raises:
        MergeError: no parent has finite losses to compare with.
    """
    if mode == "weighted":
        return Goal()
    safety = [loss for loss, _ in parents if loss is not None and math.isfinite(loss)]
    expert = [loss for _, loss in parents if loss is not None and math.isfinite(loss)]
    if not safety or not expert:
        raise MergeError(
            f"Objective '{mode}' compares with the parents, but no parent has a finite loss on both sets.",
            "Check the training pairs, or set search.objective to weighted.",
            code="no-finite-parent",
        )
    known = [loss for loss in benign if loss is not None and math.isfinite(loss)] if mode == "constraint" else []
    limit = min(known, default=math.inf) + tolerance
    return Goal(mode, min(safety) + tolerance, (max(safety), max(expert)), limit)


def _feasible_first(generation: Sequence[CandidateScored]) -> list[float]:
    """Feasible candidates have their objective; the others come after the last of them, by their violation.

    CMA-ES uses ranks only, so an offset that differs between generations changes nothing.
    """
    scored = [candidate for candidate in generation if not candidate.failure]
    feasible = [candidate.objective for candidate in scored if candidate.violation == 0]
    behind = max(feasible or [candidate.objective for candidate in scored], default=0.0)
    return [
        candidate.objective if candidate.failure or candidate.violation == 0 else behind + candidate.violation
        for candidate in generation
    ]


def _front_growth(
    generation: Sequence[CandidateScored], before: Sequence[CandidateScored], reference: Point
) -> list[float]:
    """Negative uncrowded hypervolume improvement, against all other candidates of the search so far."""
    values = []
    for candidate in generation:
        others = pareto_front([other for other in (*before, *generation) if other is not candidate])
        front = [(other.ce_safety or 0.0, other.ce_expert or 0.0) for other in others]
        values.append(candidate.objective if candidate.failure else _uncrowded(candidate, front, reference))
    return values


def _uncrowded(candidate: CandidateScored, front: Sequence[Point], reference: Point) -> float:
    point = (candidate.ce_safety or 0.0, candidate.ce_expert or 0.0)
    growth = hypervolume([*front, point], reference) - hypervolume(front, reference)
    return -growth if growth > 0 else _distance(point, front, reference)


def _distance(point: Point, front: Sequence[Point], reference: Point) -> float:
    """From a dominated point to the region within `reference` that no point of `front` (safest first) dominates."""
    inside = [(safety, expert) for safety, expert in front if safety < reference[0] and expert < reference[1]]
    corners = zip(
        [safety for safety, _ in inside] + [reference[0]], [reference[1]] + [e for _, e in inside], strict=True
    )
    return min(math.hypot(max(0.0, point[0] - safety), max(0.0, point[1] - expert)) for safety, expert in corners)
