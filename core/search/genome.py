"""The parameters that a search may change, and the pure map from a point in the unit cube to a recipe.

Bounds: weights in [0, 1.5] (0 is the base, 1 the expert), down to -1 where negative ones are allowed; a linear merge's
in [0, 1]; SLERP's t in [0, 1]; densities as in the table of methods. The start is the middle of the pool, with
densities large enough to carry signal: weight 1/2 over the experts, density 0.6, t 1/2. Each parameter group of the
layout has such a set of parameters; parameters that affect no tensor that an expert changes are inactive and not
searched. Methods that mergekit's own code merges have the parameters of `core.search.parameter_ranges` and one group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from core.contracts.merge_methods import LINEAR, METHODS, merged_by_mergekit, weight_count
from core.contracts.method_info import MethodInfo, Range, Value
from core.errors import MergeError
from core.merging.recipes import FIRST_MASK_VERSION, LATEST_MASK_VERSION, Recipe, equal_weights, task_weights
from core.merging.scopes import Scope
from core.search.parameter_groups import WHOLE, Layout
from core.search.parameter_ranges import FreeParameter, free_parameters, normalizes

LEAST_NEGATIVE = -1.0
_DENSITY = Range(0.05, 1.0, 0.6)


@dataclass(frozen=True)
class Parameter:
    """One searched parameter: its name, bounds and start."""

    name: str
    low: float
    high: float
    start: float

    def value(self, unit: float) -> float:
        """From [0, 1] to the parameter's own range; values outside are clipped."""
        return self.low + min(max(unit, 0.0), 1.0) * (self.high - self.low)

    @property
    def unit_start(self) -> float:
        """The start in [0, 1]."""
        return (self.start - self.low) / (self.high - self.low)

    def unit(self, value: float) -> float:
        """From the parameter's own range to [0, 1]; values outside are clipped."""
        return replace(self, start=min(max(value, self.low), self.high)).unit_start

    def slope(self, _unit: float) -> float:
        """Derivative of `value` in [0, 1]."""
        return self.high - self.low


@dataclass(frozen=True)
class LogParameter(Parameter):
    """A parameter whose logarithm is searched; its bounds are positive."""

    def value(self, unit: float) -> float:
        share = min(max(unit, 0.0), 1.0)
        return math.exp(math.log(self.low) + share * math.log(self.high / self.low))

    @property
    def unit_start(self) -> float:
        return math.log(self.start / self.low) / math.log(self.high / self.low)

    def slope(self, unit: float) -> float:
        return self.value(unit) * math.log(self.high / self.low)


@dataclass(frozen=True)
class Genome:
    """What is searched for a pool: the parameters in order, and how they become a recipe.

    Attributes:
        method: merge method.
        base: reference of the model that task vectors are taken from.
        experts: references of the merged models.
        base_is_member: False for an outside ancestor: it is not merged, so a linear merge gives it no weight.
        seed: of DARE's masks, the same for all candidates, which then differ only by what is searched.
        fixed_parameters: of the method (`search.parameters`), as pairs in alphabetical order.
        layout: which tensors share their parameters; all of them for a method that mergekit's own code merges.
        negative_weights: whether weights may be negative.
        normalize: as the recipe's (a linear merge's weights are normalized anyway).
        log_densities: whether densities are searched on a logarithmic scale, from its middle.
        mask_version: version of DARE's masks, as the recipe's.
    """

    method: str
    base: str
    experts: tuple[str, ...]
    base_is_member: bool = True
    seed: int = 0
    fixed_parameters: tuple[tuple[str, Value], ...] = ()
    layout: Layout = WHOLE
    negative_weights: bool = False
    normalize: bool = False
    log_densities: bool = False
    mask_version: int = LATEST_MASK_VERSION

    @property
    def info(self) -> MethodInfo:
        """The method's row in the table."""
        return METHODS[self.method]

    @property
    def basic(self) -> Genome:
        """The genome with one set of positive parameters, which grid search and LM-Cocktail choose from."""
        return replace(self, layout=WHOLE, negative_weights=False, normalize=False)

    @property
    def linear(self) -> Genome:
        """The same pool, merged linearly with one set of parameters: each parent is such a merge."""
        return replace(self.basic, method=LINEAR, fixed_parameters=())

    @cached_property
    def searched(self) -> tuple[Parameter, ...]:
        """The searched parameters, in the order of a point's coordinates."""
        groups = self.layout.parameter_groups
        if len(groups) == 1:
            return self._of_one_group
        return tuple(
            replace(parameter, name=f"{parameter.name} ({self.layout.label(group)})")
            for group, active in zip(groups, self._active, strict=True)
            for parameter, searched in zip(self._of_one_group, active, strict=True)
            if searched
        )

    @property
    def columns(self) -> int:
        """Number of parameters of one group."""
        return len(self._of_one_group)

    @property
    def hidden_weights(self) -> int:
        """Number of first weights of a recipe that are no parameters: a linear merge's base that is no member."""
        return int(self.info.merges_base and not self.base_is_member)

    @cached_property
    def places(self) -> dict[tuple[int, int], int]:
        """(group, column) of each searched parameter -> its index in `searched`."""
        if len(self.layout.parameter_groups) == 1:
            return {(0, column): column for column in range(self.columns)}
        pairs = [(group, column) for group, row in enumerate(self._active) for column, used in enumerate(row) if used]
        return {pair: index for index, pair in enumerate(pairs)}

    def point_of(self, recipe: Recipe) -> list[float]:
        """The point in the unit cube that is nearest to a recipe of the same models.

        Weights of another method are taken as those of its task vectors; densities that it lacks have their start.

        Raises:
            MergeError: the recipe merges other models.
        """
        if (recipe.base, set(recipe.experts)) != (self.base, set(self.experts)) or not self.info.fast:
            message = f"The merge by {recipe.label} cannot be the start of this search: it merges other models."
            raise MergeError(message, "Name a run of the same pool in search.start.", code="other-models")
        point = [parameter.unit_start for parameter in self.searched]
        for (group, column), place in self.places.items():
            first = self.layout.first_block(self.layout.parameter_groups[group])
            values = self._values_of(recipe, first, self.layout.parameter_groups[group].filter)
            if values[column] is not None:
                point[place] = self.searched[place].unit(values[column])
        return point

    def _values_of(self, recipe: Recipe, block: int, part: str | None) -> list[Any]:
        """A group's parameter values in a recipe; None where it has none."""
        scopes = (s for s in recipe.scopes if s.holds_block(block) and (s.filter is None or s.filter == part))
        local = recipe.inside(scope) if (scope := next(scopes, None)) else recipe.model_copy(update={"scopes": ()})
        if self.info.interpolates:
            return [task_weights(local)[0]]
        by_expert = dict(zip(local.experts, _plain_weights(local), strict=True))
        weights: list[Any] = [by_expert[name] for name in self.experts]
        if self.info.merges_base:
            return [1.0 - sum(weights), *weights] if self.base_is_member else weights
        if not self.info.has_densities:
            return weights
        densities = dict(zip(local.experts, local.densities or (None,) * len(local.experts), strict=True))
        return weights + [densities[name] for name in self.experts]

    @property
    def inactive(self) -> int:
        """Number of parameters that are not searched, because no expert changes a tensor that they affect."""
        return len(self.layout.parameter_groups) * len(self._of_one_group) - len(self.searched)

    @property
    def shared_axes(self) -> tuple[int, ...]:
        """For each parameter its axis in a smaller search, in which groups share parameters, and experts theirs.

        Experts keep their own where only the proportions of weights count: shared weights would then change nothing.
        """
        each = self.info.merges_base or self._normalizes
        axes = [number if each else number // len(self.experts) for number in range(len(self._of_one_group))]
        if not self.info.fast:
            shared = [
                parameter.name if each else free.parameter
                for parameter, free in zip(self.searched, self._free, strict=True)
            ]
            axes = [shared.index(name) for name in shared]
        if len(self.layout.parameter_groups) > 1:
            axes = [axis for row in self._active for axis, searched in zip(axes, row, strict=True) if searched]
        used = sorted(set(axes))
        return tuple(used.index(axis) for axis in axes)

    @property
    def _normalizes(self) -> bool:
        """Whether only the proportions of the weights count; on the fast path only where that is requested."""
        fixed = dict(self.fixed_parameters)
        if not self.info.fast:
            return normalizes(self.method, fixed)
        return self.normalize or fixed.get("normalize") is True

    @property
    def _free(self) -> tuple[FreeParameter, ...]:
        """The searched parameters of a method that mergekit's own code merges."""
        return free_parameters(self.method, self.base, self.experts, dict(self.fixed_parameters))

    @cached_property
    def _of_one_group(self) -> tuple[Parameter, ...]:
        """The parameters of one group."""
        if not self.info.fast:
            return tuple(_parameter(free) for free in self._free)
        count, least = len(self.experts), LEAST_NEGATIVE if self.negative_weights else 0.0
        if self.info.merges_base:
            names = (self.base, *self.experts) if self.base_is_member else self.experts
            return tuple(Parameter(f"weight:{name}", least, 1.0, 1.0 / len(names)) for name in names)
        if self.info.interpolates:
            return (Parameter("t", 0.0, 1.0, 0.5),)
        weights = tuple(Parameter(f"weight:{name}", least, 1.5, 0.5 / count) for name in self.experts)
        if not self.info.has_densities:
            return weights
        density = self.info.parameter("density")
        low, high, start, _ = (density.searched if density else None) or _DENSITY
        kind, start = (LogParameter, math.sqrt(low * high)) if self.log_densities else (Parameter, start)
        return weights + tuple(kind(f"density:{name}", low, high, start) for name in self.experts)

    @cached_property
    def _active(self) -> tuple[tuple[bool, ...], ...]:
        """By group, whether each of its parameters is searched; of weights divided by their sum all count."""
        count, info = len(self.experts), self.info
        shared = info.merges_base or info.interpolates or (self._normalizes and not info.elects_signs)
        active = []
        for group in self.layout.parameter_groups:
            changing = self.layout.experts_changing(group, count)
            own = [number in changing for number in range(count)]
            weights = [bool(changing)] * (len(self._of_one_group) - count * info.has_densities)
            if not shared:  # normalized TIES divides a weight by itself where only one expert changes tensors
                weights = own if len(changing) > 1 or not self._normalizes else [False] * count
            active.append((*weights, *(own if info.has_densities else ())))
        return tuple(active)

    def recipe(self, point: Sequence[float]) -> Recipe:
        """The recipe at `point` in the unit cube, one coordinate for each searched parameter."""
        exact = [parameter.value(unit) for parameter, unit in zip(self.searched, point, strict=True)]
        if not self.info.fast:
            return self._mergekit_recipe(exact)
        values = [round(value, 6) for value in exact]
        if len(self.layout.parameter_groups) == 1:
            return self._fast_recipe(values)
        coordinates = iter(values)
        by_group = [
            [
                next(coordinates) if searched else parameter.start
                for parameter, searched in zip(self._of_one_group, active, strict=True)
            ]
            for active in self._active
        ]
        rows = [row for row, active in zip(by_group, self._active, strict=True) if any(active)]
        return self._fast_recipe(_mean(rows), by_group)

    def _fast_recipe(self, values: Sequence[float], by_group: Sequence[Sequence[float]] = ()) -> Recipe:
        scopes = self._scopes(by_group) if by_group else ()
        if by_group and self.layout.granularity is None:
            values = by_group[-1]  # the tensors that no filter matches
        weights, densities = self._split(values)
        return Recipe(
            method=self.method,
            base=self.base,
            experts=self.experts,
            weights=weights,
            densities=densities,
            seed=self.seed if self.info.random else 0,
            parameters=self.fixed_parameters,
            scopes=scopes,
            blocks=self.layout.blocks if scopes else 0,
            normalize=self.normalize and not self.info.merges_base,
            mask_version=self.mask_version if self._drops_at_random else FIRST_MASK_VERSION,
        )

    @property
    def _drops_at_random(self) -> bool:
        """Whether the fast path drops entries at random (DARE), as of the recipe."""
        return self.info.drops == "random" and not merged_by_mergekit(self.method, dict(self.fixed_parameters))

    def plain(self) -> Recipe:
        """The merge without a choice: equal weights, whole task vectors, other parameters at their start."""
        if self.info.fast:
            equal = equal_weights(self.method, self.base, self.experts, base_is_member=self.base_is_member)
            return equal.model_copy(update={"parameters": self.fixed_parameters})
        plain = {"weight": 1.0 / (len(self.experts) + self.base_is_member), "density": 1.0}
        return self._mergekit_recipe([plain.get(free.parameter, free.range.start) for free in self._free])

    def _mergekit_recipe(self, values: Sequence[float]) -> Recipe:
        """The recipe of a method that mergekit's own code merges; one fixed number may stand for all models."""
        per_model: dict[str, list[float]] = {}
        given: dict[str, Value] = dict(self.fixed_parameters)
        for free, value in zip(self._free, values, strict=True):
            value = float(f"{value:.6g}")
            if free.model is None:
                given[free.parameter] = value
            else:
                per_model.setdefault(free.parameter, []).append(value)
        given |= {name: tuple(each) for name, each in per_model.items()}
        weights = _for_each(given.pop("weight", ()), weight_count(self.method, len(self.experts)))
        densities = _for_each(given.pop("density", ()), len(self.experts))
        return Recipe(
            method=self.method,
            base=self.base,
            experts=self.experts,
            weights=weights if abs(sum(weights)) >= 1e-8 else (1.0,) * len(weights),  # cancelling (0/0): equal
            densities=densities if self.info.has_densities else None,
            seed=self.seed if self.info.random else 0,
            parameters=tuple(sorted(given.items())),
        )

    def _scopes(self, by_group: Sequence[Sequence[float]]) -> tuple[Scope, ...]:
        """Ranges of blocks by filter, with their parameters; without those in which nothing is searched."""
        parts = (*self.layout.filters, None)
        scopes = []
        for blocks, group_weights in self.layout.block_ranges():
            for number, part in enumerate(parts):
                groups = [(group * len(parts) + number, share) for group, share in group_weights]
                if (blocks, part) == (None, None) or not any(any(self._active[group]) for group, _ in groups):
                    continue
                rows = zip(*([share * value for value in by_group[group]] for group, share in groups), strict=True)
                weights, densities = self._split([round(sum(row), 6) for row in rows])
                scopes.append(Scope(blocks=blocks, filter=part, weights=weights, densities=densities))
        return tuple(scopes)

    def _split(self, values: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
        """A group's parameter values as weights and densities."""
        count = len(self.experts)
        if self.info.merges_base:
            return self._weights_with_base(list(values)), None
        return tuple(values[:count]), tuple(values[count:]) if self.info.has_densities else None

    def _weights_with_base(self, values: list[float]) -> tuple[float, ...]:
        """Weights of base and experts; equal where they cancel (x/0)."""
        weights = values if abs(sum(values)) > 1e-8 else [1.0] * len(values)
        return tuple(weights) if self.base_is_member else (0.0, *weights)


def _plain_weights(recipe: Recipe) -> tuple[float, ...]:
    """A recipe's weights of the task vectors, before DARE divides them by the densities."""
    return task_weights(recipe) if recipe.info.merges_base else recipe.weights


def _parameter(free: FreeParameter) -> Parameter:
    low, high, start, log = free.range
    return (LogParameter if log else Parameter)(free.name, low, high, start)


def _for_each(value: Value, models: int) -> tuple[float, ...]:
    """A number for each model, from one for all or one for each."""
    return value if isinstance(value, tuple) else (float(value),) * models


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [round(sum(column) / len(rows), 6) for column in zip(*rows, strict=True)]


def inactive_note(genome: Genome) -> str:
    """How many parameters are not searched, as one line; empty where all are."""
    if not genome.inactive:
        return ""
    total = genome.inactive + len(genome.searched)
    return f"{genome.inactive} of {total} parameters are not searched: no expert changes a tensor that they affect."
