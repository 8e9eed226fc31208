"""Grid search: the baseline that tries a few hand-picked values and keeps the most accurate merge (paper, Appendix B).

No training data is used: candidates are chosen by accuracy on the probe questions, which are apart from the test set.
All task vectors share one weight and one density; SLERP has its t alone. Values are tried from low to high, and of two
candidates that are equally accurate the first is kept, so a tie goes to the merge nearer to the base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

from core.contracts.run_spec import MergeMethod
from core.errors import SpecError
from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.optimizer import Terms

DENSITIES = (0.25, 0.5, 1.0)
TWO_MODELS = (0.25, 0.5, 1.0)
MORE_MODELS = (0.1, 0.25, 0.33, 0.5, 1.0)
"""Weights for pools of three models, the largest the paper tries; larger pools take the same."""
STEPS_OF_T = tuple(tenths / 10 for tenths in range(1, 11))
"""SLERP's t: ten even steps from the base, which is left out, to the expert."""

Values = tuple[float, ...]


class Grid:
    """Every recipe of the grid, once.

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
        """Never: the whole grid is tried."""
        return ""

    def ask(self) -> list[Recipe]:
        """The whole grid at the first call, nothing afterwards."""
        recipes = [] if self._asked else self._recipes
        self._asked = True
        return list(recipes)

    def tell(self, objectives: Sequence[float], _terms: Sequence[Terms] = ()) -> None:
        """Nothing is learnt from them: the grid is fixed."""

    def result(self, best: Recipe | None) -> Recipe | None:
        """The candidate with the lowest objective."""
        return best


def grid_recipes(genome: Genome) -> list[Recipe]:
    """The grid of a pool and method, lower weights first; recipes that are the same merge appear once.

    Raises:
        SpecError: the method has no grid.
    """
    genome = genome.basic
    grid = GRIDS.get(genome.method)
    if grid is None:
        raise SpecError(f"There is no grid for {genome.method}.", f"Grid search knows {', '.join(GRIDS)}.")
    return list(dict.fromkeys(_recipe(genome, values) for values in grid(genome)))


def _trimmed(genome: Genome) -> Iterator[Values]:
    """Every weight with every density."""
    count = len(genome.experts)
    for weight, density in product(_weights(genome), DENSITIES):
        yield (*(weight,) * count, *(density,) * count)


def _whole(genome: Genome) -> Iterator[Values]:
    """Every weight, with whole task vectors."""
    for weight in _weights(genome):
        yield (weight,) * len(genome.experts)


def _linear(genome: Genome) -> Iterator[Values]:
    """Each expert has the weight, and the base the rest of 1 but at least 0; shares add up to 1.

    Where the base is an outside ancestor, all members have the same share whatever the weight: one recipe.
    """
    count = len(genome.experts)
    for weight in _weights(genome):
        base = max(0.0, 1.0 - count * weight) if genome.base_is_member else 0.0
        experts = ((1.0 - base) / count,) * count
        yield (base, *experts) if genome.base_is_member else experts


def _along_the_arc(_genome: Genome) -> Iterator[Values]:
    """Every t; SLERP has one expert."""
    for t in STEPS_OF_T:
        yield (t,)


GRIDS: dict[MergeMethod, Callable[[Genome], Iterator[Values]]] = {
    "ties": _trimmed,
    "dare_ties": _trimmed,
    "dare_linear": _trimmed,
    "slerp": _along_the_arc,
    "task_arithmetic": _whole,
    "linear": _linear,
}
"""Each method's grid, as values of its genes. A method with other numbers gets a generator of its own here."""


def _weights(genome: Genome) -> tuple[float, ...]:
    models = len(genome.experts) + genome.base_is_member
    return TWO_MODELS if models <= 2 else MORE_MODELS


def _recipe(genome: Genome, values: Values) -> Recipe:
    """The recipe with these values of the genes, which lie within their bounds."""
    return genome.recipe(
        [(value - gene.low) / (gene.high - gene.low) for gene, value in zip(genome.searched, values, strict=True)]
    )
