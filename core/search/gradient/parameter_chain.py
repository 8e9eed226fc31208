"""The chain rule from the tensors of a merge to the searched parameters of a genome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from core.merging.differentiation import Contraction, contract_recipe, merge_difference
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

    def at(self, point: Sequence[float]) -> GradientSums:
        """Collects the gradients of tensors at a point of the unit cube."""
        return GradientSums(self, tuple(point))

    def contract(self, point: Sequence[float]) -> Callable[[str, Tensor], Contraction]:
        """A function from a tensor's name and gradient to its part of dL/dx, (n,), at a point of the unit cube."""
        if not self.genome.info.fast:
            return self._by_differences(point)
        recipes = by_tensor(self.genome.recipe(point), self.tensors)
        slopes = [p.slope(unit) for p, unit in zip(self.genome.searched, point, strict=True)]
        return lambda name, gradient: self._of_tensor(name, gradient, recipes[name], slopes)

    def _of_tensor(self, name: str, gradient: Tensor, recipe: Recipe, slopes: Sequence[float]) -> Contraction:
        genome, places = self.genome, self.genome.places
        groups = genome.layout.groups_of(name)
        weights, skipped = len(recipe.weights), genome.hidden_weights
        searched = {column for group, _ in groups for column in range(genome.columns) if (group, column) in places}
        densities = any(column + skipped >= weights for column in searched)
        found = contract_recipe(self.pool, name, recipe, gradient, densities=densities)

        def derivatives(sums: list[float]) -> list[float]:
            values = found.derivatives(sums)[skipped:]
            total = [0.0] * len(genome.searched)
            for group, share in groups:
                for column in searched:
                    if (place := places.get((group, column))) is not None:
                        total[place] += share * values[column] * slopes[place]
            return total

        return Contraction(found.sums, derivatives)

    def _by_differences(self, point: Sequence[float]) -> Callable[[str, Tensor], Contraction]:
        """For methods of mergekit's own code: every parameter moved up and down by itself."""
        moved: list[tuple[list[Recipe], float]] = []
        for number, unit in enumerate(point):
            sides = min(1.0, unit + UNIT_STEP), max(0.0, unit - UNIT_STEP)
            recipes = [self.genome.recipe([*point[:number], side, *point[number + 1 :]]) for side in sides]
            moved.append((recipes, sides[0] - sides[1]))
        return lambda name, gradient: Contraction(
            torch.stack(
                [merge_difference(self.pool, name, recipes, gradient, distance) for recipes, distance in moved]
            ),
            list,
        )


class GradientSums:
    """The contracted gradients of all tensors at one point, added over the rows of pairs.

    The sums stay on the device until `total`: a transfer for each tensor would wait for the device each time.

    Args:
        chain: contracts a tensor's gradient.
        point: in the unit cube.
    """

    def __init__(self, chain: ParameterChain, point: tuple[float, ...]) -> None:
        self._size = len(point)
        self._contract = chain.contract(point)
        self._by_tensor: dict[str, Contraction] = {}

    def part(self) -> GradientSums:
        """Empty sums at the same point, for one row: they are added with `add` when the row is complete."""
        other = GradientSums.__new__(GradientSums)
        other._size, other._contract, other._by_tensor = self._size, self._contract, {}
        return other

    def contract(self, name: str, gradient: Tensor) -> None:
        """Add a tensor's gradient."""
        self._put(name, self._contract(name, gradient))

    def add(self, other: GradientSums) -> None:
        """Add the sums of a row."""
        for name, contraction in other._by_tensor.items():
            self._put(name, contraction)

    def _put(self, name: str, new: Contraction) -> None:
        old = self._by_tensor.get(name)
        self._by_tensor[name] = new if old is None else old._replace(sums=old.sums + new.sums.to(old.sums.device))

    def total(self) -> tuple[float, ...]:
        """dL/dx, (n,)."""
        sums = [contraction.sums for contraction in self._by_tensor.values()]
        values = iter(torch.cat([one.to(sums[0].device) for one in sums]).tolist() if sums else [])
        parts = [one.derivatives([next(values) for _ in one.sums]) for one in self._by_tensor.values()]
        return tuple(torch.tensor([[0.0] * self._size, *parts], dtype=torch.float64).sum(0).tolist())
