"""Grid search: the baseline that tries a few hand-picked values and keeps the most accurate merge (paper, Appendix B).

No training data is used: candidates are chosen by accuracy on the probe questions, which are separate from the test
set. All task vectors share one weight and one density; SLERP has only t. Values are tried from low to high, and of two
candidates that are equally accurate the first is kept, so that a tie goes to the merge nearer to the base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

from core.contracts.merge_methods import METHODS, fast_methods
from core.contracts.results import Rate
from core.errors import SpecError
from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.optimizer import Terms

if TYPE_CHECKING:
    from core.search.scoring import Scores
    from core.search.search_plan import SearchPlan

DENSITIES = (0.25, 0.5, 1.0)
TWO_MODELS = (0.25, 0.5, 1.0)
MORE_MODELS = (0.1, 0.25, 0.33, 0.5, 1.0)
"""Weights for pools of three models, the largest that the paper tries; larger pools get the same."""
STEPS_OF_T = tuple(tenths / 10 for tenths in range(1, 11))
"""SLERP's t: ten even steps from the base, which is left out, to the expert."""

Values = tuple[float, ...]


class Grid:
    """Asks for every recipe of the grid, once.

    Args:
        genome: the pool and the method.

    Raises:
        SpecError: the method has no grid.
    """

    def __init__(self, genome: Genome) -> None:
        self._recipes = grid_recipes(genome)
        self.size = len(self._recipes)
        self._asked = False

    @property
    def ended_early(self) -> str:
        """Always empty: the whole grid is tried."""
        return ""

    def ask(self) -> list[Recipe]:
        """The whole grid at the first call, nothing afterwards."""
        recipes = [] if self._asked else self._recipes
        self._asked = True
        return list(recipes)

    def tell(self, objectives: Sequence[float], _terms: Sequence[Terms] = ()) -> None:
        """Ignore the objectives: the grid is fixed."""

    def result(self, best: Recipe | None) -> Recipe | None:
        """The candidate with the lowest objective."""
        return best


def from_plan(plan: SearchPlan) -> Grid:
    """The optimizer of a plan."""
    return Grid(plan.genome)


def objective(_plan: SearchPlan, _scores: Scores, accuracy: Callable[[], Rate]) -> float:
    """A candidate's share of wrong answers to the probe questions."""
    return 1.0 - accuracy().rate


def grid_recipes(genome: Genome) -> list[Recipe]:
    """The grid of a pool and method, lower weights first; recipes that are the same merge appear once.

    Raises:
        SpecError: the method has no grid.
    """
    genome = genome.basic
    if not METHODS[genome.method].fast:
        message = f"Grid search has no values for {genome.method}."
        raise SpecError(message, f"Choose one of {', '.join(fast_methods())}.", code="method-without-grid")
    return list(dict.fromkeys(_recipe(genome, values) for values in _values_of(genome)))


def _values_of(genome: Genome) -> Iterator[Values]:
    """The grid as values of the genome's parameters."""
    info = METHODS[genome.method]
    if info.interpolates:
        return _steps_of_t()
    if info.merges_base:
        return _shares(genome)
    return _weights_and_densities(genome) if info.has_densities else _weights(genome)


def _weights_and_densities(genome: Genome) -> Iterator[Values]:
    """Every weight with every density."""
    count = len(genome.experts)
    for weight, density in product(_tried_weights(genome), DENSITIES):
        yield (*(weight,) * count, *(density,) * count)


def _weights(genome: Genome) -> Iterator[Values]:
    """Every weight, with whole task vectors."""
    for weight in _tried_weights(genome):
        yield (weight,) * len(genome.experts)


def _shares(genome: Genome) -> Iterator[Values]:
    """Each expert gets the weight, and the base the rest of 1 but at least 0; shares add up to 1.

    Where the base is an outside ancestor, all members have the same share whatever the weight: one recipe.
    """
    count = len(genome.experts)
    for weight in _tried_weights(genome):
        base = max(0.0, 1.0 - count * weight) if genome.base_is_member else 0.0
        experts = ((1.0 - base) / count,) * count
        yield (base, *experts) if genome.base_is_member else experts


def _steps_of_t() -> Iterator[Values]:
    """Every t; SLERP has one expert."""
    for t in STEPS_OF_T:
        yield (t,)


def _tried_weights(genome: Genome) -> tuple[float, ...]:
    models = len(genome.experts) + genome.base_is_member
    return TWO_MODELS if models <= 2 else MORE_MODELS


def _recipe(genome: Genome, values: Values) -> Recipe:
    """The recipe with these parameter values, which lie within their bounds."""
    return genome.recipe(
        [
            (value - parameter.low) / (parameter.high - parameter.low)
            for parameter, value in zip(genome.searched, values, strict=True)
        ]
    )
