"""EvoMM: CMA-ES with ask and tell, without I/O (paper section 4.4; Akiba et al. 2024).

The strategy is the `cma` library's. The population size is 4 + floor(3 ln n) (paper Appendix B, Eq. 96). Besides the
library's own convergence tests, the search can stop when two generations are almost equally good.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.optimizer import Terms

if TYPE_CHECKING:
    from core.search.search_plan import SearchPlan

INITIAL_STEP = 0.2
"""Initial standard deviation, as a share of each parameter's range (mergekit-evolve starts at 1/6)."""


class EvoMM:
    """CMA-ES over a genome's unit cube, minimizing.

    Args:
        genome: the searched parameters.
        steps: most candidates; the last generation is cut to fit.
        seed: the same seed and the same objectives give the same candidates.
        stop_when_flat: end early when `is_flat` with this tolerance (nats); None runs all steps.
    """

    def __init__(self, genome: Genome, steps: int, seed: int, stop_when_flat: float | None = None) -> None:
        self.genome = genome
        self.population = population_size(len(genome.searched))
        self.size = steps
        self._left = steps
        self._tolerance = stop_when_flat
        self._strategy = _new_strategy([parameter.unit_start for parameter in genome.searched], self.population, seed)
        self._points: list[Any] = []
        self._generations: tuple[Sequence[float], Sequence[float]] = ((), ())

    @property
    def ended_early(self) -> str:
        """The rule that ended the search before its budget; empty while it runs or when the budget is spent."""
        if self._left <= 0:
            return ""
        if self._tolerance is not None and is_flat(*self._generations, self._tolerance):
            return f"the last two generations differ by less than {self._tolerance:g} nats"
        return f"CMA-ES has converged ({', '.join(self._strategy.stop())})" if self._strategy.stop() else ""

    def ask(self) -> list[Recipe]:
        """Recipes of the next generation; empty when the budget is spent or a rule has ended the search."""
        if self._left <= 0 or self.ended_early:
            return []
        self._points = self._strategy.ask()
        return [self.genome.recipe([float(x) for x in point]) for point in self._points[: self._left]]

    def tell(self, objectives: Sequence[float], terms: Sequence[Terms] = ()) -> None:
        """Objectives of the recipes that `ask` returned last, in their order; all must be finite.

        A generation in which all candidates failed has no slope: the next generation is drawn around the same mean.
        """
        self._left -= len(objectives)
        if terms and not any(terms):
            return
        self._generations = (self._generations[1], tuple(objectives))
        if len(objectives) == len(self._points):
            self._strategy.tell(self._points, list(objectives))

    def result(self, best: Recipe | None) -> Recipe | None:
        """The candidate with the lowest objective."""
        return best


def from_plan(plan: SearchPlan) -> EvoMM:
    """The optimizer of a plan."""
    return EvoMM(plan.genome, plan.steps, plan.seed, plan.stop_when_flat)


def is_flat(before: Sequence[float], last: Sequence[float], tolerance: float) -> bool:
    """Whether the best of two generations, and all of the last one, differ by less than `tolerance`.

    A generation with a failed candidate is never flat, because its penalty is far from the others. False before there
    are two generations.
    """
    if not before or not last:
        return False
    return abs(min(before) - min(last)) < tolerance and max(last) - min(last) < tolerance


def population_size(parameters: int) -> int:
    """CMA-ES's default population for `parameters` searched parameters."""
    return 4 + math.floor(3 * math.log(parameters)) if parameters > 1 else 4


def _new_strategy(start: Sequence[float], population: int, seed: int) -> Any:
    """The `cma` library's strategy over the unit cube.

    Args:
        start: initial mean.
        population: candidates of a generation.
        seed: of the strategy's own random numbers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cma

    import numpy as np

    random = np.random.default_rng(seed)
    options = {
        "bounds": [0.0, 1.0],
        "popsize": population,
        "randn": lambda *shape: random.standard_normal(shape),  # else cma seeds and uses numpy's global state
        "seed": math.nan,
        "verbose": -9,
        "verb_log": 0,
        "tolfun": 1e-5,
        "tolx": 1e-4,
    }
    if len(start) == 1:  # the library needs two dimensions: the second is ignored
        return _OneDimensional(cma, start[0], options)
    return cma.CMAEvolutionStrategy(list(start), INITIAL_STEP, options)


class _OneDimensional:
    """CMA-ES on one parameter: a second, unused coordinate keeps the library's covariance well defined."""

    def __init__(self, cma: Any, start: float, options: dict[str, Any]) -> None:
        self._strategy = cma.CMAEvolutionStrategy([start, 0.5], INITIAL_STEP, options)
        self._asked: list[Any] = []

    def stop(self) -> Any:
        return self._strategy.stop()

    def ask(self) -> list[list[float]]:
        self._asked = self._strategy.ask()
        return [[float(point[0])] for point in self._asked]

    def tell(self, _points: Sequence[Any], objectives: list[float]) -> None:
        self._strategy.tell(self._asked, objectives)
