"""The chain rule from the tensors of a merge to the searched parameters of a genome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from core.merging.differentiation import merge_difference, recipe_derivatives
from core.merging.engine import MergePool
from core.merging.recipes import Recipe, by_tensor
from core.search.genome import Genome

UNIT_STEP = 0.01
"""Distance in the unit cube by which a parameter of mergekit's own methods is moved up and down."""


@dataclass(frozen=True)
class ParameterChain:
    """Contracts gradients of tensors into derivatives of the searched parameters, in the unit cube.

    Attributes:
        pool: the models.
        genome: the searched parameters.
    """

    pool: MergePool
    genome: Genome

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that any searched parameter changes."""
        changing = [name for name in self.pool.tensors if name in self.pool.changing]
        if not self.genome.info.fast:
            return tuple(changing)
        places = self.genome.places
        columns = range(self.genome.columns)
        return tuple(
            name
            for name in changing
            if any((group, column) in places for group, _ in self.genome.layout.groups_of(name) for column in columns)
        )

    def at(self, point: Sequence[float]) -> Callable[[str, Tensor], list[float]]:
        """A function from a tensor's name and gradient to its part of dL/dx, (n,), at a point of the unit cube."""
        if not self.genome.info.fast:
            return self._by_differences(point)
        recipes = by_tensor(self.genome.recipe(point), self.tensors)
        slopes = [p.slope(unit) for p, unit in zip(self.genome.searched, point, strict=True)]
        return lambda name, gradient: self._of_tensor(name, gradient, recipes[name], slopes)

    def _of_tensor(self, name: str, gradient: Tensor, recipe: Recipe, slopes: Sequence[float]) -> list[float]:
        genome, places = self.genome, self.genome.places
        groups = genome.layout.groups_of(name)
        weights = len(recipe.weights)
        searched = {column for group, _ in groups for column in range(genome.columns) if (group, column) in places}
        skipped = genome.hidden_weights
        densities = any(column + skipped >= weights for column in searched)
        values = recipe_derivatives(self.pool, name, recipe, gradient, densities=densities)[skipped:]
        total = [0.0] * len(genome.searched)
        for group, share in groups:
            for column in searched:
                if (place := places.get((group, column))) is not None:
                    total[place] += share * values[column] * slopes[place]
        return total

    def _by_differences(self, point: Sequence[float]) -> Callable[[str, Tensor], list[float]]:
        """For methods of mergekit's own code: every parameter moved up and down by itself."""
        moved: list[tuple[list[Recipe], float]] = []
        for number, unit in enumerate(point):
            sides = min(1.0, unit + UNIT_STEP), max(0.0, unit - UNIT_STEP)
            recipes = [self.genome.recipe([*point[:number], side, *point[number + 1 :]]) for side in sides]
            moved.append((recipes, sides[0] - sides[1]))
        return lambda name, gradient: [
            merge_difference(self.pool, name, recipes, gradient, distance) for recipes, distance in moved
        ]
