"""The numbers a search may change, and the pure map from a point in the unit cube to a recipe.

Bounds: weights in [0, 1.5] (0 is the base, 1 the expert); TIES's densities in [0.05, 1] as below that mergekit keeps
almost nothing; DARE's in [0.1, 1], as each kept entry then counts tenfold already; SLERP's t in [0, 1]. The start is
the middle of the pool, untrimmed enough to carry signal: weight 1/2 over the experts, density 0.6, t 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

from core.merging.methods import METHODS, REGISTERED, Value, has, weight_count
from core.merging.recipes import DARE_METHODS, SPARSE_METHODS, Recipe, equal_weights
from core.search.ranges import Free, free_numbers
from core.specs import MergeMethod, Method


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
class LogGene(Gene):
    """A number whose logarithm is searched; its bounds are positive."""

    def value(self, unit: float) -> float:
        share = min(max(unit, 0.0), 1.0)
        return math.exp(math.log(self.low) + share * math.log(self.high / self.low))

    @property
    def unit_start(self) -> float:
        return math.log(self.start / self.low) / math.log(self.high / self.low)


@dataclass(frozen=True)
class Genome:
    """What is searched for a pool: the genes in order, and how they become a recipe.

    Attributes:
        base_is_member: False for an outside ancestor: it is not merged, so a linear merge gives it no weight.
        seed: of DARE's masks, the same for all candidates: two of them differ by what is searched alone.
        parameters: of the method, that are fixed (`search.parameters`), as pairs in alphabetical order.
    """

    method: MergeMethod
    base: str
    experts: tuple[str, ...]
    base_is_member: bool = True
    seed: int = 0
    parameters: tuple[tuple[str, Value], ...] = ()

    @property
    def linear(self) -> Genome:
        """The same pool, merged linearly: each parent is such a merge."""
        return replace(self, method="linear", parameters=())

    @property
    def genes(self) -> tuple[Gene, ...]:
        if self.method in REGISTERED:
            return tuple(_gene(free) for free in self._free)
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
        if self.method in REGISTERED:
            return self._registered_recipe([gene.value(unit) for gene, unit in zip(self.genes, point, strict=True)])
        values = [round(gene.value(unit), 6) for gene, unit in zip(self.genes, point, strict=True)]
        count = len(self.experts)
        return Recipe(
            method=self.method,
            base=self.base,
            experts=self.experts,
            weights=self._linear_weights(values) if self.method == "linear" else tuple(values[:count]),
            densities=tuple(values[count:]) if self.method in SPARSE_METHODS else None,
            seed=self.seed if self.method in DARE_METHODS else 0,
            parameters=self.parameters,
        )

    def plain(self) -> Recipe:
        """The merge in which nothing was chosen: equal weights, whole task vectors, the rest at its start."""
        if self.method in get_args(Method):
            fast = cast(Method, self.method)
            equal = equal_weights(fast, self.base, self.experts, base_is_member=self.base_is_member)
            return equal.model_copy(update={"parameters": self.parameters})
        plain = {"weight": 1.0 / (len(self.experts) + self.base_is_member), "density": 1.0}
        return self._registered_recipe([plain.get(free.parameter, free.range.start) for free in self._free])

    @property
    def _free(self) -> tuple[Free, ...]:
        """The searched numbers of a method that mergekit merges."""
        return free_numbers(self.method, self.base, self.experts, dict(self.parameters))

    def _registered_recipe(self, values: Sequence[float]) -> Recipe:
        """The recipe of a method that mergekit merges; fixed numbers that each model has may be given as one."""
        lists: dict[str, list[float]] = {}
        numbers: dict[str, Value] = dict(self.parameters)
        for free, value in zip(self._free, values, strict=True):
            value = float(f"{value:.6g}")
            if free.model is None:
                numbers[free.parameter] = value
            else:
                lists.setdefault(free.parameter, []).append(value)
        numbers |= {name: tuple(found) for name, found in lists.items()}
        weights = _for_each(numbers.pop("weight", ()), weight_count(self.method, len(self.experts)))
        densities = _for_each(numbers.pop("density", ()), len(self.experts))
        return Recipe(
            method=self.method,
            base=self.base,
            experts=self.experts,
            weights=weights if any(weights) else (1.0,) * len(weights),
            densities=densities if has(self.method, "density") else None,
            seed=self.seed if METHODS[self.method].random else 0,
            parameters=tuple(sorted(numbers.items())),
        )

    def _linear_weights(self, values: list[float]) -> tuple[float, ...]:
        """Weights of base and experts; where all are zero (0/0) they are equal."""
        weights = values if sum(values) > 0 else [1.0] * len(values)
        return tuple(weights) if self.base_is_member else (0.0, *weights)


def _gene(free: Free) -> Gene:
    low, high, start, log = free.range
    return (LogGene if log else Gene)(free.name, low, high, start)


def _for_each(value: Value, models: int) -> tuple[float, ...]:
    """A number for each model, of one for all or one for each."""
    return value if isinstance(value, tuple) else (float(value),) * models
