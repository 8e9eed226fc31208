"""EvoMM with a surrogate: CMA-ES in which a model judges most candidates (lq-CMA-ES: Hansen, GECCO 2019).

A linear, later quadratic, model is fitted to the candidates that were scored. Of each generation the candidates that it
finds best are scored, first one, then more, until the model ranks what is scored as the scores do (Kendall's tau); the
rest of the generation is told the model's values. The strategy, the model and its fit are the `cma` library's; here is
the loop around them, turned inside out so that it asks for scores instead of calling for them.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Generator, Sequence
from typing import Any

from core.merging.recipes import Recipe
from core.search.evomm import is_flat, new_strategy, population_size
from core.search.genome import Genome

TAU = 0.85
"""Rank correlation from which on the model is trusted (section 4 of the paper)."""
FAR = 10.0
"""Values further above the best than this many times the median's distance (failures) are drawn in for the fit."""

Point = list[float]
Rounds = Generator[list[Point], Sequence[float], None]


class EvoMMSurrogate:
    """CMA-ES over a genome's unit cube, minimising, with most values from a model.

    Args:
        genome: the searched numbers.
        steps: candidates to be scored at most.
        seed: the same seed and the same told values give the same candidates.
        stop_when_flat: end early when `is_flat` with this tolerance (nats) for what was scored; None runs all steps.
    """

    def __init__(self, genome: Genome, steps: int, seed: int, stop_when_flat: float | None = None) -> None:
        self.genome = genome
        self.size = steps
        self._left = steps
        self._tolerance = stop_when_flat
        self._strategy = new_strategy(genome, population_size(len(genome.genes)), seed)
        self._model = _new_model()
        self._scored: list[float] = []
        self._rounds = self._generations()
        self._next = next(self._rounds)

    @property
    def ended_early(self) -> str:
        """Which rule ended the search before its budget; empty while it goes on or when all was used."""
        if self._left <= 0:
            return ""
        if self._tolerance is not None and self._is_flat(self._tolerance):
            return f"the last candidates differ by less than {self._tolerance:g} nats"
        return "" if self._next else f"CMA-ES has converged ({', '.join(self._strategy.stop())})"

    def ask(self) -> list[Recipe]:
        """Recipes that have to be scored next, a part of a generation; empty when the budget or the search ends."""
        if self._left <= 0 or self.ended_early:
            return []
        return [self.genome.recipe(point) for point in self._next[: self._left]]

    def tell(self, objectives: Sequence[float]) -> None:
        """Objectives of the recipes last asked for, in their order; all must be finite."""
        self._left -= len(objectives)
        self._scored += objectives
        if len(objectives) == len(self._next):
            try:
                self._next = self._rounds.send(objectives)
            except StopIteration:
                self._next = []

    def result(self, best: Recipe | None) -> Recipe | None:
        """The scored candidate with the lowest objective."""
        return best

    def _is_flat(self, tolerance: float) -> bool:
        """`is_flat` for the last scored candidates and those before them, once the model has all its terms."""
        window = max(MIN_WINDOW, (len(self.genome.genes)+1)//WDIV)
        return len(self._scored) >= AFTER(len(self.genome.genes)) and is_flat(self._scored[:-window], self._scored[-window:], tolerance)

    def _generations(self) -> Rounds:
        """Yields points to be scored and is sent their values; ends when the strategy has converged."""
        while not self._strategy.stop():
            points = [[float(x) for x in point] for point in self._strategy.ask()]
            values = yield from self._judge(points)
            self._strategy.tell(points, values)
            self._strategy.inject([[min(max(float(x), 0.0), 1.0) for x in self._model.xopt]])

    def _judge(self, points: list[Point]) -> Generator[list[Point], Sequence[float], list[float]]:
        """Values of a generation: all scored, or the model's, shifted so that the lowest is the lowest scored one."""
        model, known = self._model, dict[int, float]()
        model.settings.max_absolute_size = len(points)
        ratio = model.settings.truncation_ratio
        wanted = 1 + max(math.floor(0.02 * len(points)), math.ceil(3 / ratio) - model.size)
        while len(known) < len(points):
            order = sorted(range(len(points)), key=lambda i: model.eval(points[i])) if model.size > 1 else range(len(points))
            chosen = [i for i in order if i not in known][: wanted - len(known)]
            values = yield [points[i] for i in chosen]
            known |= zip(chosen, values, strict=True)
            for i in chosen:
                self._add(points[i], known[i])
            model.sort(len(known))
            if model.kendall(max(15, int(min(1.2 * len(known), 0.75 * len(points))))) >= TAU:
                break
            wanted += math.ceil(wanted / 2)
        model.sort(len(known))
        model.adapt_max_relative_size(model.tau.tau)
        if len(known) == len(points):
            return [known[i] for i in range(len(points))]
        judged = [float(model.eval(point)) for point in points]
        return [value - min(judged) + min(known.values()) for value in judged]

    def _add(self, point: Point, value: float) -> None:
        self._model.add_data_row(point, value)


def _new_model() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cma.fitness_models import LQModel
    return LQModel()

MIN_WINDOW=3
WDIV=2
AFTER=lambda n: 0
