"""The numbers a search may change, and the pure map from a point in the unit cube to a recipe.

Bounds: weights in [0, 1.5] (0 is the base, 1 the expert), down to -1 where negative ones are allowed; TIES's densities
in [0.05, 1] as below that mergekit keeps almost nothing; DARE's in [0.1, 1], as each kept entry then counts tenfold
already; SLERP's t in [0, 1]. The start is the middle of the pool, untrimmed enough to carry signal: weight 1/2 over the
experts, density 0.6, t 1/2. Each cell of the layout has such a set of numbers; those that cannot matter, as no expert
changes a tensor they reach, are not searched. Methods that mergekit itself merges have the numbers of
`core.search.parameter_ranges` and one cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast, get_args

from core.contracts.merge_methods import METHODS, REGISTERED, Value, has, merged_by_mergekit, weight_count
from core.contracts.run_spec import MergeMethod, Method
from core.merging.recipes import (
    DARE_METHODS,
    FIRST_MASK_VERSION,
    LATEST_MASK_VERSION,
    SPARSE_METHODS,
    Recipe,
    equal_weights,
)
from core.merging.scopes import Scope
from core.search.parameter_groups import WHOLE, Layout
from core.search.parameter_ranges import FreeParameter, free_parameters, normalizes

LEAST_NEGATIVE = -1.0


@dataclass(frozen=True)
class Parameter:
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
class LogParameter(Parameter):
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
        layout: which tensors share their numbers; all of them for a method that mergekit merges.
        negative_weights: whether weights may go below zero.
        normalize: as the recipe's (a linear merge's weights are normalised anyway).
        log_densities: whether densities are searched on a logarithmic scale, from its middle.
        mask_version: of DARE's masks, as the recipe's.
    """

    method: MergeMethod
    base: str
    experts: tuple[str, ...]
    base_is_member: bool = True
    seed: int = 0
    parameters: tuple[tuple[str, Value], ...] = ()
    layout: Layout = WHOLE
    negative_weights: bool = False
    normalize: bool = False
    log_densities: bool = False
    mask_version: int = LATEST_MASK_VERSION

    @property
    def basic(self) -> Genome:
        """The genome of one set of positive numbers, which grid search and LM-Cocktail choose from."""
        return replace(self, layout=WHOLE, negative_weights=False, normalize=False)

    @property
    def linear(self) -> Genome:
        """The same pool, merged linearly by one set of numbers: each parent is such a merge."""
        return replace(self.basic, method="linear", parameters=())

    @cached_property
    def searched(self) -> tuple[Parameter, ...]:
        if len(self.layout.cells) == 1:
            return self._numbers
        return tuple(
            replace(gene, name=f"{gene.name} ({self.layout.place(cell)})")
            for cell, active in zip(self.layout.cells, self._active, strict=True)
            for gene, searched in zip(self._numbers, active, strict=True)
            if searched
        )

    @property
    def idle(self) -> int:
        """Genes that are not searched as they cannot matter."""
        return len(self.layout.cells) * len(self._numbers) - len(self.searched)

    @property
    def shared_axes(self) -> tuple[int, ...]:
        """For each gene the axis it lies on when all cells share their numbers, and experts too where that says much.

        Equal weights that are divided by their sum say nothing: those are shared among cells alone.
        """
        each = self.method == "linear" or self._normalizes
        axes = [number if each else number // len(self.experts) for number in range(len(self._numbers))]
        if self.method in REGISTERED:
            shared = [
                gene.name if each else free.parameter for gene, free in zip(self.searched, self._free, strict=True)
            ]
            axes = [shared.index(name) for name in shared]
        if len(self.layout.cells) > 1:
            axes = [axis for row in self._active for axis, searched in zip(axes, row, strict=True) if searched]
        used = sorted(set(axes))
        return tuple(used.index(axis) for axis in axes)

    @property
    def _normalizes(self) -> bool:
        """Whether only the proportions of the weights count; on the fast path only where that is asked for."""
        fixed = dict(self.parameters)
        if self.method in REGISTERED:
            return normalizes(self.method, fixed)
        return self.normalize or fixed.get("normalize") is True

    @property
    def _free(self) -> tuple[FreeParameter, ...]:
        """The searched numbers of a method that mergekit merges."""
        return free_parameters(self.method, self.base, self.experts, dict(self.parameters))

    @cached_property
    def _numbers(self) -> tuple[Parameter, ...]:
        """The genes of one cell."""
        if self.method in REGISTERED:
            return tuple(_parameter(free) for free in self._free)
        count, least = len(self.experts), LEAST_NEGATIVE if self.negative_weights else 0.0
        if self.method == "linear":
            names = (self.base, *self.experts) if self.base_is_member else self.experts
            return tuple(Parameter(f"weight:{name}", least, 1.0, 1.0 / len(names)) for name in names)
        if self.method == "slerp":
            return (Parameter("t", 0.0, 1.0, 0.5),)
        weights = tuple(Parameter(f"weight:{name}", least, 1.5, 0.5 / count) for name in self.experts)
        if self.method == "task_arithmetic":
            return weights
        least = 0.05 if self.method == "ties" else 0.1
        kind, start = (LogParameter, math.sqrt(least)) if self.log_densities else (Parameter, 0.6)
        return weights + tuple(kind(f"density:{name}", least, 1.0, start) for name in self.experts)

    @cached_property
    def _active(self) -> tuple[tuple[bool, ...], ...]:
        """By cell, whether each of its numbers is searched; of weights that are divided by their sum all count."""
        count = len(self.experts)
        by_entry = self.method in ("ties", "dare_ties")
        shared = self.method in ("linear", "slerp") or (self._normalizes and not by_entry)
        active = []
        for cell in self.layout.cells:
            changers = self.layout.changers(cell, count)
            own = [number in changers for number in range(count)]
            weights = [bool(changers)] * (len(self._numbers) - count * (self.method in SPARSE_METHODS))
            if not shared:  # normalised TIES: what one expert alone changes has its weight divided by itself
                weights = own if len(changers) > 1 or not self._normalizes else [False] * count
            active.append((*weights, *(own if self.method in SPARSE_METHODS else ())))
        return tuple(active)

    def recipe(self, point: Sequence[float]) -> Recipe:
        """The recipe at `point` in the unit cube, one coordinate per gene."""
        if self.method in REGISTERED:
            return self._registered_recipe([gene.value(unit) for gene, unit in zip(self.searched, point, strict=True)])
        values = [round(gene.value(unit), 6) for gene, unit in zip(self.searched, point, strict=True)]
        if len(self.layout.cells) == 1:
            return self._recipe(values)
        found = iter(values)
        by_cell = [
            [next(found) if searched else gene.start for gene, searched in zip(self._numbers, active, strict=True)]
            for active in self._active
        ]
        return self._recipe(_mean([row for row, on in zip(by_cell, self._active, strict=True) if any(on)]), by_cell)

    def _recipe(self, values: Sequence[float], by_cell: Sequence[Sequence[float]] = ()) -> Recipe:
        scopes = self._scopes(by_cell) if by_cell else ()
        if by_cell and self.layout.granularity is None:
            values = by_cell[-1]  # the tensors that no filter names
        weights, densities = self._split(values)
        return Recipe(
            method=self.method,
            base=self.base,
            experts=self.experts,
            weights=weights,
            densities=densities,
            seed=self.seed if self.method in DARE_METHODS else 0,
            parameters=self.parameters,
            scopes=scopes,
            blocks=self.layout.blocks if scopes else 0,
            normalize=self.normalize and self.method != "linear",
            mask_version=self.mask_version if self._drops_at_random else FIRST_MASK_VERSION,
        )

    @property
    def _drops_at_random(self) -> bool:
        """Whether the method is the fast path's DARE."""
        return self.method in DARE_METHODS and not merged_by_mergekit(self.method, dict(self.parameters))

    def plain(self) -> Recipe:
        """The merge in which nothing was chosen: equal weights, whole task vectors, the rest at its start."""
        if self.method in get_args(Method):
            fast = cast(Method, self.method)
            equal = equal_weights(fast, self.base, self.experts, base_is_member=self.base_is_member)
            return equal.model_copy(update={"parameters": self.parameters})
        plain = {"weight": 1.0 / (len(self.experts) + self.base_is_member), "density": 1.0}
        return self._registered_recipe([plain.get(free.parameter, free.range.start) for free in self._free])

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
            weights=weights if abs(sum(weights)) >= 1e-8 else (1.0,) * len(weights),  # cancelling (0/0): equal
            densities=densities if has(self.method, "density") else None,
            seed=self.seed if METHODS[self.method].random else 0,
            parameters=tuple(sorted(numbers.items())),
        )

    def _scopes(self, by_cell: Sequence[Sequence[float]]) -> tuple[Scope, ...]:
        """Runs of blocks by filter, with what their tensors get; without those in which nothing is searched."""
        parts = (*self.layout.filters, None)
        scopes = []
        for blocks, group_weights in self.layout.runs():
            for number, part in enumerate(parts):
                cells = [(group * len(parts) + number, share) for group, share in group_weights]
                if (blocks, part) == (None, None) or not any(any(self._active[cell]) for cell, _ in cells):
                    continue
                rows = zip(*([share * value for value in by_cell[cell]] for cell, share in cells), strict=True)
                weights, densities = self._split([round(sum(row), 6) for row in rows])
                scopes.append(Scope(blocks=blocks, filter=part, weights=weights, densities=densities))
        return tuple(scopes)

    def _split(self, values: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
        """A cell's numbers as weights and densities."""
        count = len(self.experts)
        if self.method == "linear":
            return self._linear_weights(list(values)), None
        return tuple(values[:count]), tuple(values[count:]) if self.method in SPARSE_METHODS else None

    def _linear_weights(self, values: list[float]) -> tuple[float, ...]:
        """Weights of base and experts; where they cancel (x/0) they are equal."""
        weights = values if abs(sum(values)) > 1e-8 else [1.0] * len(values)
        return tuple(weights) if self.base_is_member else (0.0, *weights)


def _parameter(free: FreeParameter) -> Parameter:
    low, high, start, log = free.range
    return (LogParameter if log else Parameter)(free.name, low, high, start)


def _for_each(value: Value, models: int) -> tuple[float, ...]:
    """A number for each model, of one for all or one for each."""
    return value if isinstance(value, tuple) else (float(value),) * models


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [round(sum(column) / len(rows), 6) for column in zip(*rows, strict=True)]


def inactive_note(genome: Genome) -> str:
    """How many genes are not searched, as one line; empty where all are."""
    if not genome.idle:
        return ""
    total = genome.idle + len(genome.searched)
    return f"{genome.idle} of {total} numbers are not searched: no expert changes the tensors they would be for."
