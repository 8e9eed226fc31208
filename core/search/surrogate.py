"""EvoMM with a surrogate: CMA-ES in which a model judges most candidates (lq-CMA-ES: Hansen, GECCO 2019).

A linear, later quadratic, model is fitted to the candidates that were scored. Of each generation the candidates that it
finds best are scored, first one, then more, until it ranks what is scored as the scores do (Kendall's tau); the rest of
the generation is told the model's values. The model's lowest point becomes a candidate of the next generation. The
strategy, the model and its fit are the `cma` library's; here is the loop around them, turned inside out so that it asks
for scores instead of calling for them.

Where many numbers are searched, a first stage looks for the few that all cells and experts can share; the search in
full starts from its best, closer around it, and knows what was scored.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from core.merging.recipes import Recipe
from core.search.evomm import INITIAL_STEP, all_failed, inject, is_flat, new_strategy, population_size
from core.search.genome import Genome
from core.search.optimizer import Terms

TAU = 0.85
"""Rank correlation from which on the model is trusted (section 4 of the paper)."""
SECOND_STEP = 0.05
"""Initial standard deviation of the search in full after a first stage."""
FIRST_STAGE = 2
"""Times the points of a whole quadratic model: what the first stage may score."""
FIRST_FLAT = 0.002
"""Nats by which the last scored may differ where the first stage is at its end."""
WINDOW = 4
"""Scored candidates that count as the last generation when it is asked whether the search is flat."""
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
        axes: for each gene the axis whose value it has.
        scored: objectives so far.
    """

    strategy: Any
    model: Any
    axes: tuple[int, ...]
    scored: list[float]

    def point(self, axes: Sequence[float]) -> Point:
        """A point of the genome's unit cube."""
        return [float(axes[axis]) for axis in self.axes]


class EvoMMSurrogate:
    """CMA-ES over a genome's unit cube, minimising, with most values from a model.

    Args:
        genome: the searched numbers.
        steps: candidates to be scored at most.
        seed: the same seed and the same told values give the same candidates.
        stop_when_flat: end early when what was scored last `is_flat` with this tolerance (nats); None goes on.
    """

    def __init__(self, genome: Genome, steps: int, seed: int, stop_when_flat: float | None = None) -> None:
        self.genome = genome
        self.size = steps
        self._left = steps
        self._seed = seed
        self._tolerance = stop_when_flat
        self._seen: list[tuple[float, Point]] = []
        self._learnt = False
        self._asking = self._search()
        self._next = next(self._asking)

    @property
    def ended_early(self) -> str:
        """Which rule ended the search before its budget; empty while it goes on or when all was used."""
        if self._left <= 0:
            return ""
        if self._tolerance is not None and self._is_flat(self._tolerance):
            return f"the last candidates differ by less than {self._tolerance:g} nats"
        return "" if self._next else f"CMA-ES has converged ({', '.join(self._stage.strategy.stop())})"

    def ask(self) -> list[Recipe]:
        """Recipes that have to be scored next, a part of a generation; empty when the budget or the search ends."""
        if self._left <= 0 or self.ended_early:
            return []
        return [self.genome.recipe(point) for point in self._next[: self._left]]

    def tell(self, objectives: Sequence[float], terms: Sequence[Terms] = ()) -> None:
        """Objectives of the recipes last asked for, in their order; all must be finite.

        A generation in which all failed says nothing of the slope: the next is drawn from the same place.
        """
        self._left -= len(objectives)
        self._seen += zip(objectives, self._next, strict=False)
        if not all_failed(terms):
            self._learnt = True
            self._stage.scored.extend(objectives)
        if len(objectives) == len(self._next):
            self._next = _advanced(self._asking, objectives)

    def result(self, best: Recipe | None) -> Recipe | None:
        """The scored candidate with the lowest objective."""
        return best

    def _is_flat(self, tolerance: float) -> bool:
        """Whether the last of the search in full are as good as what came before them."""
        scored = self._stage.scored
        full = len(self._stage.axes) == 1 + max(self._stage.axes)
        return full and is_flat(scored[:-WINDOW], scored[-WINDOW:], tolerance)

    def _search(self) -> Asking:
        """Yields points to be scored and is sent their values; ends when the strategy has converged."""
        shared = self.genome.shared_axes
        count, step = len(shared), INITIAL_STEP
        start = [gene.unit_start for gene in self.genome.searched]
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
        """Generations of the stage until `enough` are scored, or fewer where those of a stage with a limit are flat."""
        stage = self._stage
        while len(stage.scored) < enough and not stage.strategy.stop():
            if enough < math.inf and is_flat(stage.scored[:-WINDOW], stage.scored[-WINDOW:], FIRST_FLAT):
                break
            points, self._learnt = [[float(x) for x in point] for point in stage.strategy.ask()], False
            values = yield from self._judge(points)
            if not self._learnt:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an injected point on the bounds is not known again
                stage.strategy.tell(points, values)
            inject(stage.strategy, lowest_point(stage.model))

    def _judge(self, points: list[Point]) -> Judging:
        """Values of a generation: all scored, or the model's, shifted so that the lowest is the lowest scored one."""
        model, known = self._stage.model, dict[int, float]()
        model.settings.max_absolute_size = len(points)
        wanted = 1 + max(len(points) // 50, math.ceil(3 / model.settings.truncation_ratio) - model.size)
        while len(known) < len(points):
            order = list(range(len(points)))
            if model.size > 1:
                order = sorted(order, key=lambda number: float(model.eval(points[number])))
            chosen = [number for number in order if number not in known][: wanted - len(known)]
            values = yield [self._stage.point(points[number]) for number in chosen]
            known.update(zip(chosen, values, strict=True))
            for number in chosen:
                self._learn(points[number], known[number])
            model.sort(len(known))
            if model.kendall(max(15, int(min(1.2 * len(known), 0.75 * len(points))))) >= TAU:
                break
            wanted += math.ceil(wanted / 2)
        model.adapt_max_relative_size(model.tau.tau)
        if len(known) == len(points):
            return [known[number] for number in range(len(points))]
        judged = [float(model.eval(point)) for point in points]
        return [value - min(judged) + min(known.values()) for value in judged]

    def _learn(self, point: Point, value: float) -> None:
        """Give the model a scored point; a failure's penalty, which would bend it, is drawn in towards the others."""
        import numpy as np

        model = self._stage.model
        if model.size > 2:
            middle, lowest = statistics.median(model.F), min(model.F)
            value = min(value, middle + _FAR * max(middle - lowest, 1e-6))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a point that was scored before
            model.add_data_row(np.array(point), value)


def lowest_point(model: Any) -> Point:
    """Where the model is lowest within the unit cube; a linear one has a step down its slope."""
    import numpy as np
    from scipy.optimize import minimize

    beyond = np.clip(model.xopt, 0.0, 1.0)
    if not model.types:
        return [float(x) for x in beyond]
    slope, bend = model.b, model.hessian
    found = [
        minimize(
            lambda x: float(slope @ x + x @ bend @ x),
            start,
            jac=lambda x: slope + 2 * bend @ x,
            bounds=[(0.0, 1.0)] * len(start),
            method="L-BFGS-B",
        )
        for start in (model.X[int(np.argmin(model.Y))], beyond)
    ]
    return [float(x) for x in min(found, key=lambda result: float(result.fun)).x]


def _advanced(asking: Asking, values: Sequence[float]) -> list[Point]:
    """What is asked for after `values`; empty at the end."""
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
    """Scored points from which on the model has all quadratic terms (`cma`'s own rule)."""
    return math.ceil(1.1 * (axes * (axes + 3) // 2 + 1) / 0.75)
