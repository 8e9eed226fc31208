"""A recipe: which models are merged, by which method and with which numbers; and its mergekit configuration.

mergekit is the authority on what a recipe means. `to_mergekit` gives the configuration that `mergekit-yaml` runs to the
same weights; the fast path in `core.merging.engine` is tested against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from core.contracts.merge_methods import FAST, METHODS, Value, has, merged_by_mergekit, weight_count
from core.contracts.run_spec import MergeMethod, Method
from core.errors import MergeError
from core.merging.scopes import Scope, block_of

if TYPE_CHECKING:
    pass

DARE_METHODS: tuple[Method, ...] = ("dare_ties", "dare_linear")
SPARSE_METHODS: tuple[Method, ...] = ("ties", *DARE_METHODS)
NORMALIZING_METHODS: tuple[Method, ...] = ("ties", "task_arithmetic", "dare_linear")
"""Methods whose weights may be divided by their sum; a linear merge's always are."""
FIRST_MASK_VERSION = 1
"""Version of DARE's masks in recipes that name none."""
LATEST_MASK_VERSION = 2
"""Version of DARE's masks in the recipes of new searches."""


def _unset(value: object) -> bool:
    return not value


class Recipe(BaseModel):
    """One merge.

    Attributes:
        method: merge method.
        base: reference of the model that task vectors are taken from.
        experts: references of the merged models, in the order of `weights`.
        weights: one weight for each expert; for `linear`, and others that merge the base like an expert, the base's own
            weight comes first; for `slerp` the one number is t in [0, 1], from the base (0) to its only expert (1);
            empty for a method without weights.
        densities: share of each task vector's entries that is kept: by magnitude (TIES), or at random and then divided
            by the density (DARE).
        seed: of DARE's masks, which follow from it, the expert's reference and the tensor's name
            (`core.merging.dare`); of the other methods that draw random numbers, anew for each tensor.
        parameters: mergekit's other parameters by name, as pairs in alphabetical order; those not named have mergekit's
            default, but for `normalize` and DARE's `rescale` on the fast path, which are off.
        scopes: tensors with numbers of their own, the first that fits counts. The others get `weights` and `densities`;
            where the scopes hold all that any expert changes, those are the scopes' means, for reading.
        blocks: how many the model has; needed where a scope names some.
        normalize: weights are divided by their sum: of all experts, or for TIES, entry by entry, of those that agree.
        mask_version: how DARE's masks follow from `seed`: 1 draws them in order on the processor, 2 computes each
            entry's number from its place, on any device. The masks of a version never change.

    A record holds the last five only where they say something, so that a plain recipe's is what it always was.
    """

    model_config = ConfigDict(frozen=True)

    method: MergeMethod
    base: str
    experts: tuple[str, ...]
    weights: tuple[float, ...]
    densities: tuple[float, ...] | None = None
    seed: int = Field(default=0, ge=0)
    parameters: tuple[tuple[str, Value], ...] = Field(default=(), exclude_if=_unset)
    scopes: tuple[Scope, ...] = Field(default=(), exclude_if=_unset)
    blocks: int = Field(default=0, ge=0, exclude_if=_unset)
    normalize: bool = Field(default=False, exclude_if=_unset)
    mask_version: int = Field(
        default=FIRST_MASK_VERSION, ge=1, le=LATEST_MASK_VERSION, exclude_if=lambda value: value == FIRST_MASK_VERSION
    )

    @field_validator("parameters", mode="before")
    @classmethod
    def _pairs_in_order(cls, value: Any) -> Any:
        return tuple(sorted(value.items())) if isinstance(value, Mapping) else value

    @field_serializer("parameters")
    def _mapping(self, value: tuple[tuple[str, Value], ...]) -> dict[str, Value]:
        return dict(value)

    @model_validator(mode="after")
    def _means_something(self) -> Recipe:
        _check_numbers(self.method, len(self.experts), self.weights, self.densities)
        for scope in self.scopes:
            _check_numbers(self.method, len(self.experts), scope.weights, scope.densities)
            if scope.blocks is not None and scope.blocks[1] > self.blocks:
                raise ValueError(f"a scope names {scope.place}, the model has {self.blocks} blocks")
        if self.scopes and self.method not in FAST:
            raise ValueError(f"scopes belong to {', '.join(FAST)}")
        if unknown := [name for name, _ in self.parameters if not has(self.method, name)]:
            raise ValueError(f"{self.method} has no parameter {unknown[0]}")
        if self.normalize and (self.method not in NORMALIZING_METHODS or self.by_mergekit):
            raise ValueError(f"normalize belongs to {', '.join(NORMALIZING_METHODS)}, on the fast path")
        if self.mask_version != FIRST_MASK_VERSION and not self.drops_at_random:
            raise ValueError(f"mask_version belongs to {', '.join(DARE_METHODS)}, on the fast path")
        return self

    def inside(self, scope: Scope) -> Recipe:
        """The recipe of one scope's tensors, without scopes."""
        numbers = {"weights": scope.weights, "densities": scope.densities}
        return self.model_copy(update={"scopes": (), "blocks": 0, **numbers})

    def without(self, expert: str) -> Recipe:
        """The recipe with an expert's entries taken out and the rest as it is.

        Raises:
            MergeError: the method cannot merge the models that are left with these numbers.
        """
        place, count = self.experts.index(expert), len(self.experts)

        def less(values: Any) -> Any:
            """One value for each expert, perhaps after the base's own; anything else stays."""
            if not isinstance(values, tuple) or len(values) < count:
                return values
            at = place + len(values) - count
            return (*values[:at], *values[at + 1 :])

        numbers = ("experts", "weights", "densities")
        parts = {**dict(self), **{name: less(getattr(self, name)) for name in numbers}}
        parts["parameters"] = tuple((name, less(value)) for name, value in self.parameters)
        parts["scopes"] = tuple(
            scope.model_copy(update={"weights": less(scope.weights), "densities": less(scope.densities)})
            for scope in self.scopes
        )
        try:
            return Recipe.model_validate(parts)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise MergeError(f"{self.label} cannot be merged without {expert}: {reason}.") from error

    @property
    def by_mergekit(self) -> bool:
        """Whether mergekit's own code merges, as the fast path has no equal of the method or of its parameters."""
        return merged_by_mergekit(self.method, dict(self.parameters))

    @property
    def drops_at_random(self) -> bool:
        """Whether the method is the fast path's DARE, whose masks follow from `seed`."""
        return self.method in DARE_METHODS and not self.by_mergekit

    @property
    def is_random(self) -> bool:
        """Whether `seed` counts."""
        return METHODS[self.method].random

    def option(self, name: str, default: Value) -> Value:
        """A parameter's value, `default` where the recipe does not name it."""
        return dict(self.parameters).get(name, default)

    @property
    def label(self) -> str:
        """A short text such as `ties w=0.62 d=0.48`."""
        parts: list[str] = [self.method]
        if self.weights:
            parts.append(("t=" if self.method == "slerp" else "w=") + "/".join(f"{w:.2f}" for w in self.weights))
        if self.densities is not None:
            parts.append("d=" + "/".join(f"{d:.2f}" for d in self.densities))
        parts += [f"{name}={_shown(value)}" for name, value in self.parameters]
        if self.normalize:
            parts.append("normalized")
        if self.is_random:
            parts.append(f"seed={self.seed}")
        if self.scopes:
            parts.append(f"and {len(self.scopes)} scope{'s' * (len(self.scopes) > 1)}")
        return " ".join(parts)

    @property
    def repeat_note(self) -> str:
        """What keeps mergekit from writing the same weights, as one line; empty where nothing does."""
        if not self.is_random:
            return ""
        if self.by_mergekit:
            return (
                f"Random numbers are drawn: SafeMerge draws each tensor's from seed {self.seed} and the tensor's name, "
                "mergekit from its process's global state, so its weights differ."
            )
        return (
            f"Entries are dropped at random: SafeMerge's masks follow from seed {self.seed}, mergekit draws others, so "
            "its weights differ. In mergekit_config.yml each weight is divided by its density already."
        )


def by_tensor(recipe: Recipe, tensors: Iterable[str]) -> dict[str, Recipe]:
    """The recipe of each tensor, without scopes; tensors of one scope have the same object."""
    if not recipe.scopes:
        return dict.fromkeys(tensors, recipe)
    parts = [(scope, recipe.inside(scope)) for scope in recipe.scopes]
    rest = recipe.model_copy(update={"scopes": (), "blocks": 0})
    found = {}
    for tensor in tensors:
        block = block_of(tensor, recipe.blocks)
        found[tensor] = next((part for scope, part in parts if scope.holds(tensor, block)), rest)
    return found


def _check_numbers(
    method: MergeMethod, experts: int, weights: tuple[float, ...], densities: tuple[float, ...] | None
) -> None:
    """Raises ValueError for weights and densities that mean nothing to a method."""
    expected = weight_count(method, experts)
    if len(weights) != expected:
        raise ValueError(f"{method} needs {expected} weights, got {len(weights)}")
    if not all(math.isfinite(weight) for weight in weights):
        raise ValueError("weights must be finite")
    if (densities is not None) != _is_sparse(method):
        raise ValueError("densities belong to ties, dare_ties and dare_linear, which need them")
    if densities is not None and len(densities) != experts:
        raise ValueError("one density for each expert")
    if any(not 0 < density <= 1 for density in densities or ()):
        raise ValueError("densities lie in (0, 1]")
    if method == "slerp" and (experts != 1 or not 0 <= weights[0] <= 1):
        raise ValueError("slerp merges the base and one expert, at t in [0, 1]")
    if method in ("linear", "multislerp") and abs(sum(weights)) < 1e-8:
        raise ValueError(f"{method} weights cancel: their sum is zero")


def _is_sparse(method: str) -> bool:
    return method in SPARSE_METHODS or (method not in FAST and has(method, "density"))


def _shown(value: Value) -> str:
    return "/".join(f"{one:.3g}" for one in value) if isinstance(value, tuple) else f"{value:.3g}"


def effective_weights(recipe: Recipe) -> tuple[float, ...]:
    """Weights of what is kept of the task vectors: DARE's are divided by the densities, which makes up for the rest.

    Where they are normalised they are divided by their sum first, but for TIES, which does so entry by entry.

    Raises:
        MergeError: weights that are to be normalised cancel.
    """
    weights = recipe.weights
    if recipe.normalize and recipe.method != "ties":
        total = sum(weights)
        if abs(total) < 1e-8:
            raise MergeError(f"{recipe.label}: the weights cancel, so they cannot be divided by their sum.")
        weights = tuple(weight / total for weight in weights)
    if not recipe.drops_at_random:
        return weights
    return tuple(weight / density for weight, density in zip(weights, recipe.densities or (), strict=True))


def equal_weights(method: Method, base: str, experts: tuple[str, ...], *, base_is_member: bool = True) -> Recipe:
    """The plain merge: every model of the pool with the same weight 1/N (SLERP: t = 1/2), nothing trimmed or dropped.

    Args:
        base_is_member: False for an outside ancestor, which is none of the N models and gets no weight.
    """
    share = 1.0 / (len(experts) + base_is_member)
    if method == "linear":
        weights = (share * base_is_member, *(share,) * len(experts))
        return Recipe(method=method, base=base, experts=experts, weights=weights)
    densities = (1.0,) * len(experts) if method in SPARSE_METHODS else None
    return Recipe(method=method, base=base, experts=experts, weights=(share,) * len(experts), densities=densities)
