"""The numbers a search may change, and the pure map from a point in the unit cube to a recipe.

Bounds: weights in [0, 1.5] (0 is the base, 1 the expert); TIES's densities in [0.05, 1] as below that mergekit keeps
almost nothing; DARE's in [0.1, 1], as each kept entry then counts tenfold already; SLERP's t in [0, 1]. The start is
the middle of the pool, untrimmed enough to carry signal: weight 1/2 over the experts, density 0.6, t 1/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.merging.recipes import DARE_METHODS, SPARSE_METHODS, Recipe
from core.specs import Method


@dataclass(frozen=True)
class Gene:
    """One searched number: its name, bounds and start."""

    name: str
    low: float
    high: float
    start: float

    def value(self, unit: float) -> float:
        """From [0, 1] to the gene's own range; outside is clipped."""
        return self.low + min(max(unit, 0.0), 1.0) * (self.high - self.low)

    @property
    def unit_start(self) -> float:
        return (self.start - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Genome:
    """What is searched for a pool: the genes in order, and how they become a recipe.

    Attributes:
        base_is_member: False for an outside ancestor: it is not merged, so a linear merge gives it no weight.
        seed: of DARE's masks, the same for all candidates: two of them differ by what is searched alone.
    """

    method: Method
    base: str
    experts: tuple[str, ...]
    base_is_member: bool = True
    seed: int = 0

    @property
    def genes(self) -> tuple[Gene, ...]:
        count = len(self.experts)
        if self.method == "linear":
            names = (self.base, *self.experts) if self.base_is_member else self.experts
            return tuple(Gene(f"weight:{name}", 0.0, 1.0, 1.0 / len(names)) for name in names)
        if self.method == "slerp":
            return (Gene("t", 0.0, 1.0, 0.5),)
        weights = tuple(Gene(f"weight:{name}", 0.0, 1.5, 0.5 / count) for name in self.experts)
        if self.method == "task_arithmetic":
            return weights
        least = 0.05 if self.method == "ties" else 0.1
        return weights + tuple(Gene(f"density:{name}", least, 1.0, 0.6) for name in self.experts)

    def recipe(self, point: Sequence[float]) -> Recipe:
        """The recipe at `point` in the unit cube, one coordinate per gene."""
        values = [round(gene.value(unit), 6) for gene, unit in zip(self.genes, point, strict=True)]
        count = len(self.experts)
        return Recipe(
            method=self.method,
            base=self.base,
            experts=self.experts,
            weights=self._linear_weights(values) if self.method == "linear" else tuple(values[:count]),
            densities=tuple(values[count:]) if self.method in SPARSE_METHODS else None,
            seed=self.seed if self.method in DARE_METHODS else 0,
        )

    def _linear_weights(self, values: list[float]) -> tuple[float, ...]:
        """Weights of base and experts; where all are zero (0/0) they are equal."""
        weights = values if sum(values) > 0 else [1.0] * len(values)
        return tuple(weights) if self.base_is_member else (0.0, *weights)
