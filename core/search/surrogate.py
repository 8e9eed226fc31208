"""EvoMM with a surrogate: CMA-ES in which a model judges most candidates (lq-CMA-ES: Hansen, GECCO 2019).

A linear, later quadratic, model is fitted to the scored candidates. Of each generation, the candidates that the model
ranks best are scored, first one, then more, until its ranking agrees with the scores (Kendall's tau); the strategy gets
the model's values for the rest. The model's minimum becomes a candidate of the next generation. The strategy, the model
and its fit are the `cma` library's; this module has the loop around them, which asks for scores instead of calling for
them.

Where there are many parameters, a first stage searches the few that all groups and experts can share. The full search
starts from its best candidate with a smaller step, and keeps what was scored.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.merging.recipes import Recipe
from core.search.evomm import INITIAL_STEP, all_failed, inject, is_flat, new_strategy, population_size
from core.search.genome import Genome
from core.search.optimizer import Terms

if TYPE_CHECKING:
    from core.search.search_plan import SearchPlan

TAU = 0.85
"""Rank correlation from which the model is trusted (section 4 of the paper)."""
SECOND_STEP = 0.05
"""Initial standard deviation of the full search after a first stage."""
FIRST_STAGE = 2
"""Most candidates of the first stage, in multiples of those that a full quadratic model needs."""
FIRST_FLAT = 0.002
"""The first stage ends when the last candidates differ by less than this many nats."""
WINDOW = 4
"""Scored candidates that count as the last generation when the search is tested for flatness."""
_FAR = 20.0

Point = list[float]
Asking = Generator[list[Point], Sequence[float], None]
Judging = Generator[list[Point], Sequence[float], list[float]]


@dataclass(frozen=True)
class _Stage:
    """A search over some axes.

    Attributes:
        strategy: CMA-ES over the axes' unit cube.
        model: of the objective.
        axes: for each parameter the axis whose value it has.
        scored: objectives so far.
    """

    strategy: Any
    model: Any
    axes: tuple[int, ...]
    scored: list[float]

    def point(self, axes: Sequence[float]) -> Point:
        """The point of the genome's unit cube with these values of the axes."""
        return [float(axes[axis]) for axis in self.axes]


class EvoMMSurrogate:
    """CMA-ES over a genome's unit cube, minimizing, with most values from a model.

    Args:
        genome: the searched parameters.
        steps: most candidates that are scored.
        seed: the same seed and the same objectives give the same candidates.
        stop_when_flat: end early when the last scored candidates are flat (`is_flat`) within this tolerance (nats);
            None goes on.
    """

    def __init__(self, genome: Genome, steps: int, seed: int, stop_when_flat: float | None = None) -> None:
        self.genome = genome
        self.size = steps
        self._left = steps
        self._seed = seed
        self._tolerance = stop_when_flat
        self._seen: list[tuple[float, Point]] = []
        self._any_scored = False
        self._asking = self._search()
        self._next = next(self._asking)

    @property
    def ended_early(self) -> str:
        """The rule that ended the search before its budget; empty while it runs or when the budget is spent."""
        if self._left <= 0:
            return ""
        if self._tolerance is not None and self._is_flat(self._tolerance):
            return f"the last candidates differ by less than {self._tolerance:g} nats"
        return "" if self._next else f"CMA-ES has converged ({', '.join(self._stage.strategy.stop())})"

    def ask(self) -> list[Recipe]:
        """Recipes to score next, part of a generation; empty when the budget is spent or the search has ended."""
        if self._left <= 0 or self.ended_early:
            return []
        return [self.genome.recipe(point) for point in self._next[: self._left]]

    def tell(self, objectives: Sequence[float], terms: Sequence[Terms] = ()) -> None:
        """Objectives of the recipes that `ask` returned last, in their order; all must be finite.

        A generation in which all candidates failed has no slope: the next generation is drawn around the same mean.
        """
        self._left -= len(objectives)
        self._seen += zip(objectives, self._next, strict=False)
        if not all_failed(terms):
            self._any_scored = True
            self._stage.scored.extend(objectives)
        if len(objectives) == len(self._next):
            self._next = _advance(self._asking, objectives)

    def result(self, best: Recipe | None) -> Recipe | None:
        """The scored candidate with the lowest objective."""
        return best

    def _is_flat(self, tolerance: float) -> bool:
        """Whether the last candidates of the full search are as good as those before them."""
        scored = self._stage.scored
        full = len(self._stage.axes) == 1 + max(self._stage.axes)
        return full and is_flat(scored[:-WINDOW], scored[-WINDOW:], tolerance)

    def _search(self) -> Asking:
        """Yield points to score and receive their values; ends when the strategy has converged."""
        shared = self.genome.shared_axes
        count, step = len(shared), INITIAL_STEP
        start = [parameter.unit_start for parameter in self.genome.searched]
        if max(shared) + 1 < count:
            start_shared = [start[shared.index(axis)] for axis in range(max(shared) + 1)]
            self._stage = self._new_stage(start_shared, INITIAL_STEP, shared)
            yield from self._generations(enough=FIRST_STAGE * _full_model(len(start_shared)))
            start, step = min(self._seen)[1], SECOND_STEP
        self._stage = self._new_stage(start, step, tuple(range(count)))
        for value, point in sorted(self._seen, reverse=True):
            self._learn(point, value)
        yield from self._generations()

    def _new_stage(self, start: Sequence[float], step: float, axes: tuple[int, ...]) -> _Stage:
        inside = [min(max(value, 0.02), 0.98) for value in start]
        strategy = new_strategy(inside, population_size(len(start)), self._seed, step)
        return _Stage(strategy, _new_model(), axes, [])

    def _generations(self, enough: float = math.inf) -> Asking:
        """Generations of the stage until `enough` candidates are scored; a limited stage also ends when it is flat."""
        stage = self._stage
        while len(stage.scored) < enough and not stage.strategy.stop():
            if enough < math.inf and is_flat(stage.scored[:-WINDOW], stage.scored[-WINDOW:], FIRST_FLAT):
                break
            points, self._any_scored = [[float(x) for x in point] for point in stage.strategy.ask()], False
            values = yield from self._judge(points)
            if not self._any_scored:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # cma does not recognize an injected point on the bounds
                stage.strategy.tell(points, values)
            inject(stage.strategy, lowest_point(stage.model))

    def _judge(self, points: list[Point]) -> Judging:
        """Values of a generation: all scored, or the model's, shifted so that the lowest is the lowest scored one."""
        model, known = self._stage.model, dict[int, float]()
        model.settings.max_absolute_size = len(points)
        target = 1 + max(len(points) // 50, math.ceil(3 / model.settings.truncation_ratio) - model.size)
        while len(known) < len(points):
            order = list(range(len(points)))
            if model.size > 1:
                order = sorted(order, key=lambda number: float(model.eval(points[number])))
            chosen = [number for number in order if number not in known][: target - len(known)]
            values = yield [self._stage.point(points[number]) for number in chosen]
            known.update(zip(chosen, values, strict=True))
            for number in chosen:
                self._learn(points[number], known[number])
            model.sort(len(known))
            if model.kendall(max(15, int(min(1.2 * len(known), 0.75 * len(points))))) >= TAU:
                break
            target += math.ceil(target / 2)
        model.adapt_max_relative_size(model.tau.tau)
        if len(known) == len(points):
            return [known[number] for number in range(len(points))]
        judged = [float(model.eval(point)) for point in points]
        return [value - min(judged) + min(known.values()) for value in judged]

    def _learn(self, point: Point, value: float) -> None:
        """Add a scored point to the model; a failure's penalty, which would distort it, is reduced first."""
        import numpy as np

        model = self._stage.model
        if model.size > 2:
            middle, lowest = statistics.median(model.F), min(model.F)
            value = min(value, middle + _FAR * max(middle - lowest, 1e-6))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a point that was scored before
            model.add_data_row(np.array(point), value)


def from_plan(plan: SearchPlan) -> EvoMMSurrogate:
    """The optimizer of a plan."""
    return EvoMMSurrogate(plan.genome, plan.steps, plan.seed, plan.stop_when_flat)


def lowest_point(model: Any) -> Point:
    """The model's minimum within the unit cube; for a linear model a step down its slope."""
    import numpy as np
    from scipy.optimize import minimize

    beyond = np.clip(model.xopt, 0.0, 1.0)
    if not model.types:
        return [float(x) for x in beyond]
    slope, bend = model.b, model.hessian
    minima = [
        minimize(
            lambda x: float(slope @ x + x @ bend @ x),
            start,
            jac=lambda x: slope + 2 * bend @ x,
            bounds=[(0.0, 1.0)] * len(start),
            method="L-BFGS-B",
        )
        for start in (model.X[int(np.argmin(model.Y))], beyond)
    ]
    return [float(x) for x in min(minima, key=lambda result: float(result.fun)).x]


def _advance(asking: Asking, values: Sequence[float]) -> list[Point]:
    """The points to score after `values`; empty at the end."""
    try:
        return asking.send(values)
    except StopIteration:
        return []


def _new_model() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cma.fitness_models import LQModel
    return LQModel()


def _full_model(axes: int) -> int:
    """Scored points from which the model has all quadratic terms (`cma`'s own rule)."""
    return math.ceil(1.1 * (axes * (axes + 3) // 2 + 1) / 0.75)
