"""Gradient search: mini-batch Adam over the searched parameters, then a bounded quasi-Newton polish.

Adam (Kingma and Ba 2015, arXiv 1412.6980) makes a few passes over the training pairs, a step per mini-batch. L-BFGS-B
(Byrd, Lu, Nocedal, Zhu 1995) then continues from the best candidate on all training pairs. The held-out pairs choose
the result and end the search: many weights can overfit few pairs. The loop goes through steps instead of recipes: some
score a candidate, the others differentiate. The class performs no input or output.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.gradient.pair_parts import HELD_OUT_SHARE
from core.search.objectives import Goal, TermWeights
from core.search.optimizer import Terms

GRADIENT_COST = 2.5
"""Work of a forward and backward pass over all pairs, in candidates."""
PASSES = 4
"""Passes of Adam over the training pairs."""
RATE = 0.06
"""Adam's first step, as a share of each parameter's range; it falls to a tenth along a cosine."""
_BETAS = (0.8, 0.95)
_TINY = 1e-8
PATIENCE = 3
"""Candidates of the polish without a lower held-out loss that end the search."""
LEAST_GAIN = 0.002
"""A lower held-out loss counts when it is lower by this share."""
ROUND = 10
"""Most steps of the polish before a constraint's multiplier is adapted and the quasi-Newton model is rebuilt."""
_FIRST_MULTIPLIER, _MOST_MULTIPLIER, _MULTIPLIER_STEP = 3.0, 10.0, 20.0
_FAILED_STARTS = 4

Point = list[float]


class Step(NamedTuple):
    """What the optimizer wants to know.

    Attributes:
        point: in the unit cube.
        weights: of the losses; None only scores the candidate.
        batch: the mini-batch to differentiate; None = all training pairs.
    """

    point: tuple[float, ...]
    weights: TermWeights | None = None
    batch: int | None = None


class Answer(NamedTuple):
    """What a step found.

    Attributes:
        value: the weighted loss of a differentiated step, nats per token; the held-out rank of a scored one.
        gradient: empty where the candidate was scored only.
        losses: loss of each kind of pair in the step, for the constraints.
        rank: (violation, held-out objective) of a scored candidate.
        failed: the step was rejected: nothing finite was found.
    """

    value: float = math.nan
    gradient: tuple[float, ...] = ()
    losses: Mapping[str, float] = MappingProxyType({})
    rank: tuple[float, float] = (math.inf, math.inf)
    failed: bool = False


Steps = Generator[Step, Answer, None]


class Descent:
    """Gradient search over a genome's unit cube, minimizing.

    Args:
        genome: the searched parameters.
        budget: most work, in scored candidates; a gradient over all pairs counts `GRADIENT_COST`.
        weights: of the losses; with a `constraint` goal the safety loss gets a multiplier instead.
        seed: of the order of the mini-batches.
        start: recipe to start from; None = the plain merge.
        regularize: weight of the mean squared distance from equal weights, in the unit cube.
        goal: how candidates are judged.
    """

    def __init__(
        self,
        genome: Genome,
        budget: int,
        weights: TermWeights,
        seed: int,
        start: Recipe | None = None,
        regularize: float = 0.0,
        goal: Goal | None = None,
    ) -> None:
        self.genome = replace(genome, log_densities=True)
        self.size = budget
        self.spent = 0.0
        self.ended_early = ""
        self._goal = goal or Goal()
        self._limits = self._goal.limits
        self._weights = weights._replace(**dict.fromkeys(self._limits, _FIRST_MULTIPLIER))
        self._batches = 1
        self._random = np.random.default_rng(seed)
        self._equal = _point_of(self.genome, None)
        self._regularize = regularize
        self._best: tuple[tuple[float, float], Point] = ((math.inf, math.inf), _point_of(self.genome, start))
        self._steps = self._search()

    def ask(self) -> list[Recipe]:
        """Nothing: this optimizer goes through steps."""
        return []

    def tell(self, objectives: Sequence[float], terms: Sequence[Terms]) -> None:
        """Ignore objectives: this optimizer goes through steps."""

    def divide(self, batches: int) -> None:
        """Set the number of mini-batches, before the first step."""
        self._batches = batches

    def next(self, answer: Answer | None = None) -> Step | None:
        """The next step, after the answer to the last one; None at the end."""
        try:
            step = next(self._steps) if answer is None else self._steps.send(answer)
        except StopIteration:
            return None
        return step

    def recipe(self, step: Step) -> Recipe:
        """The recipe of a step."""
        return self.genome.recipe(step.point)

    def result(self, best: Recipe | None) -> Recipe | None:
        """The candidate with the lowest held-out loss."""
        return best

    def _search(self) -> Steps:
        point = self._best[1]
        answer = yield from self._scored(point)
        for _ in range(_FAILED_STARTS):  # towards the base, where every merge is finite
            if not answer.failed:
                break
            point = [0.5 * value for value in point]
            answer = yield from self._scored(point)
        if answer.failed:
            return
        yield from self._adam(point)
        while not self._over() and not self.ended_early:
            yield from self._polish()
            if self._goal.mode != "constraint" and not self.ended_early:
                self.ended_early = "the quasi-Newton steps no longer lower the loss"

    def _over(self, cost: float = 0.0) -> bool:
        return self.spent + cost > self.size - 1

    def _scored(self, point: Point) -> Generator[Step, Answer, Answer]:
        """Score a candidate; it may become the best."""
        answer = yield Step(tuple(point))
        self.spent += 1
        if not answer.failed and answer.rank < self._best[0]:
            self._best = (answer.rank, list(point))
        return answer

    def _differentiated(self, point: Point, batch: int | None) -> Generator[Step, Answer, Answer]:
        """The loss with its gradient, both with the pull towards equal weights; adapts a constraint's multiplier."""
        answer = yield Step(tuple(point), self._weights, batch)
        share = 1.0 if batch is None else 1.0 / self._batches
        self.spent += GRADIENT_COST * (1 - HELD_OUT_SHARE) * share
        if answer.failed:
            return answer
        if batch is not None:
            self._adapt(answer.losses, 1.0 / self._batches)
        pulls = [x - equal for x, equal in zip(point, self._equal, strict=True)]
        weight = self._regularize / len(pulls)
        gradient = [g + 2 * weight * pull for g, pull in zip(answer.gradient, pulls, strict=True)]
        value = answer.value + weight * sum(pull * pull for pull in pulls)
        return answer._replace(value=value, gradient=tuple(gradient))

    def _adapt(self, losses: Mapping[str, float], share: float) -> None:
        """Raise a constraint's multiplier while its loss is above the limit, else lower it (dual ascent)."""
        for kind, limit in self._limits.items():
            if math.isfinite(loss := losses.get(kind, math.nan)):
                moved = self._weights.of(kind) + _MULTIPLIER_STEP * share * (loss - limit)
                self._weights = self._weights._replace(**{kind: min(max(moved, 0.0), _MOST_MULTIPLIER)})

    def _adam(self, start: Point) -> Steps:
        """Passes over the mini-batches, each in a new order; the candidate after each pass is scored."""
        point, rate = np.array(start), RATE
        first, second, done = np.zeros(len(point)), np.zeros(len(point)), 0
        steps = PASSES * self._batches
        for _ in range(PASSES):
            for batch in self._random.permutation(self._batches).tolist():
                if self._over(GRADIENT_COST / self._batches):
                    break
                answer = yield from self._differentiated(point.tolist(), batch)
                if answer.failed:
                    rate *= 0.5
                    continue
                gradient, done = np.array(answer.gradient), done + 1
                first = _BETAS[0] * first + (1 - _BETAS[0]) * gradient
                second = _BETAS[1] * second + (1 - _BETAS[1]) * gradient**2
                mean, spread = first / (1 - _BETAS[0] ** done), np.sqrt(second / (1 - _BETAS[1] ** done))
                now = rate * (0.1 + 0.9 * (1 + math.cos(math.pi * (done - 1) / steps)) / 2)
                point = np.clip(point - now * mean / (spread + _TINY), 0.0, 1.0)
            if self._over():
                return
            yield from self._scored(point.tolist())

    def _polish(self) -> Steps:
        """A round of L-BFGS-B from the best candidate; every point that it evaluates is scored as a candidate.

        scipy calls the function that it minimizes. It is run again from the start with the known values for every new
        point, which costs nothing beside a merge and keeps this class a generator.
        """
        known: dict[bytes, tuple[float, Any]] = {}
        start, before, waited = np.array(self._best[1]), self._best[0], 0
        losses: Mapping[str, float] = {}
        for _ in range(ROUND):
            point = _next_point(start, known)
            if point is None:
                break
            if self._over(1 + GRADIENT_COST):
                self.spent = float(self.size)
                return
            scored = Answer() if known else Answer(rank=before)
            if known:
                scored = yield from self._scored(point.tolist())
            answer = scored if scored.failed else (yield from self._differentiated(point.tolist(), None))
            worst = 2 * max((abs(value) for value, _ in known.values()), default=1.0)
            slope = np.array(answer.gradient) if answer.gradient else known[next(iter(known))][1] if known else None
            if slope is None:
                self.ended_early = "the gradient at the best candidate is not finite"
                return
            known[point.tobytes()] = (worst if answer.failed else answer.value, slope)
            gained = _lower(self._best[0], before)
            waited, before = (0, self._best[0]) if gained else (waited + 1, before)
            if waited > PATIENCE:
                self.ended_early = "the held-out pairs no longer gain"
                return
            losses = losses if answer.failed else answer.losses
        self._adapt(losses, 1.0)
        if len(known) <= 1:
            self.ended_early = "the gradient allows no further step"


def _lower(after: tuple[float, float], before: tuple[float, float]) -> bool:
    """Whether a rank is lower by more than noise."""
    if after[0] < before[0]:
        return True
    return after[0] == before[0] and after[1] < before[1] * (1 - LEAST_GAIN)


class _NewPoint(Exception):
    """L-BFGS-B asks for a point that is not known yet."""

    def __init__(self, point: Any) -> None:
        super().__init__()
        self.point = point


def _next_point(start: Any, known: dict[bytes, tuple[float, Any]]) -> Any:
    """The next point at which L-BFGS-B wants the value and gradient; None where it has converged."""
    from scipy.optimize import minimize

    def look_up(point: Any) -> tuple[float, Any]:
        if (found := known.get(point.tobytes())) is None:
            raise _NewPoint(point.copy())
        return found

    options = {"maxiter": ROUND, "maxfun": 2 * ROUND, "ftol": 1e-6}
    try:
        minimize(look_up, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(start), options=options)
    except _NewPoint as new:
        return new.point
    return None


def _point_of(genome: Genome, start: Recipe | None) -> Point:
    """A recipe in the unit cube, or the plain merge's weights with the densities at their start."""
    if start is not None:
        return genome.point_of(start)
    plain = genome.plain()
    if not genome.info.fast:
        return [parameter.unit_start for parameter in genome.searched]
    return genome.point_of(plain.model_copy(update={"densities": None}))
