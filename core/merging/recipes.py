"""A recipe: which models are merged, by which method and with which parameters.

mergekit defines what a recipe means. `core.merging.mergekit_config` gives the configuration that `mergekit-yaml` merges
to the same weights; the fast path in `core.merging.engine` is tested against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from core.contracts.merge_methods import (
    METHODS,
    TASK_ARITHMETIC,
    MergeMethod,
    fast_methods,
    merged_by_mergekit,
    setting,
    weight_count,
)
from core.contracts.method_info import MethodInfo, Number, Value
from core.contracts.validation import Refusal
from core.errors import MergeError
from core.merging.scopes import Scope, block_of

FIRST_MASK_VERSION = 1
"""Version of DARE's masks in recipes without a `mask_version`."""
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
        weights: one weight for each expert. For `linear`, and other methods that merge the base like an expert, the
            base's own weight comes first. For `slerp` the one number is t in [0, 1], from the base (0) to its only
            expert (1). Empty for a method without weights.
        densities: share of each task vector's entries that is kept: by magnitude (TIES), or at random and then divided
            by the density (DARE).
        seed: of DARE's masks, which depend on it, the expert's reference and the tensor's name (`core.merging.dare`);
            of other methods that draw random numbers, together with the tensor's name.
        parameters: mergekit's other parameters by name, as pairs in alphabetical order. Others have mergekit's default,
            except `normalize` and DARE's `rescale`, which are off on the fast path.
        scopes: tensors with weights and densities of their own; the first that fits counts. Other tensors get `weights`
            and `densities`. Where the scopes cover every tensor that an expert changes, those are the scopes' means,
            for information.
        blocks: number of blocks of the model; needed where a scope names some.
        normalize: weights are divided by their sum: of all experts, or for TIES, entry by entry, of those that agree.
        mask_version: how DARE's masks depend on `seed`: version 1 draws the numbers in order on the CPU, version 2
            computes each entry's number from its position, on any device. The masks of a version never change.

    Serialized recipes leave the last five out at their defaults, so that a plain recipe's record stays unchanged.
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
    def _sorted_pairs(cls, value: Any) -> Any:
        return tuple(sorted(value.items())) if isinstance(value, Mapping) else value

    @field_serializer("parameters")
    def _as_mapping(self, value: tuple[tuple[str, Value], ...]) -> dict[str, Value]:
        return dict(value)

    @property
    def info(self) -> MethodInfo:
        """The method's row in the table."""
        return METHODS[self.method]

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        _check_values(self.method, len(self.experts), self.weights, self.densities)
        for scope in self.scopes:
            _check_values(self.method, len(self.experts), scope.weights, scope.densities)
            if scope.blocks is not None and scope.blocks[1] > self.blocks:
                raise Refusal(
                    "block_missing", f"a scope names {scope.label}, but the model has {self.blocks} blocks"
                ).error()
        if self.scopes and not self.info.fast:
            known = ", ".join(fast_methods())
            raise Refusal("scopes_without_fast_path", f"scopes need one of {known}, not {self.method}").error()
        if unknown := [name for name, _ in self.parameters if self.info.parameter(name) is None]:
            raise Refusal("unknown_parameter", f"{self.method} has no parameter {unknown[0]}").error()
        if self.normalize and (not self.info.can_normalize or self.by_mergekit):
            able = ", ".join(name for name, info in METHODS.items() if info.can_normalize)
            message = f"normalize needs one of {able}, on the fast path, not {self.method}"
            raise Refusal("normalize_unsupported", message).error()
        if self.mask_version != FIRST_MASK_VERSION and not self.drops_at_random:
            able = ", ".join(name for name, info in METHODS.items() if info.fast and info.drops == "random")
            message = f"mask_version {self.mask_version} needs one of {able}, on the fast path, not {self.method}"
            raise Refusal("mask_version_unsupported", message).error()
        return self

    def inside(self, scope: Scope) -> Recipe:
        """The recipe of one scope's tensors, without scopes."""
        values = {"weights": scope.weights, "densities": scope.densities}
        return self.model_copy(update={"scopes": (), "blocks": 0, **values})

    def without(self, expert: str) -> Recipe:
        """The recipe without an expert's entries, otherwise unchanged.

        Raises:
            MergeError: the method cannot merge the remaining models with the remaining values.
        """
        index, count = self.experts.index(expert), len(self.experts)

        def less(values: Any) -> Any:
            """A list of one value for each expert (perhaps after the base's) without the expert's; else unchanged."""
            if not isinstance(values, tuple) or len(values) < count:
                return values
            at = index + len(values) - count
            return (*values[:at], *values[at + 1 :])

        lists = ("experts", "weights", "densities")
        parts = {**dict(self), **{name: less(getattr(self, name)) for name in lists}}
        parts["parameters"] = tuple((name, less(value)) for name, value in self.parameters)
        parts["scopes"] = tuple(
            scope.model_copy(update={"weights": less(scope.weights), "densities": less(scope.densities)})
            for scope in self.scopes
        )
        try:
            return Recipe.model_validate(parts)
        except ValidationError as error:
            message = f"{self.label} cannot be merged without {expert}: {error.errors()[0]['msg']}."
            raise MergeError(message, code="expert-needed") from error

    @property
    def by_mergekit(self) -> bool:
        """Whether mergekit's own code merges, because the fast path lacks the method or these parameters of it."""
        return merged_by_mergekit(self.method, dict(self.parameters))

    @property
    def drops_at_random(self) -> bool:
        """Whether the fast path drops entries at random (DARE), by masks that depend on `seed`."""
        return self.info.drops == "random" and not self.by_mergekit

    @property
    def is_random(self) -> bool:
        """Whether the weights depend on `seed`."""
        return self.info.random

    @property
    def in_mergekit(self) -> bool:
        """Whether mergekit has the method, or can write the same merge by another one."""
        return not self.info.own or self.info.adds_models

    def option(self, name: str, default: Value) -> Value:
        """A parameter's value; `default` where the recipe does not set it."""
        return dict(self.parameters).get(name, default)

    def number(self, name: str) -> float:
        """A parameter's value, else the method's default; 0 where it has none."""
        return float(cast(Number, setting(self.method, dict(self.parameters), name) or 0.0))

    @property
    def label(self) -> str:
        """A short text such as `ties w=0.62 d=0.48`."""
        parts: list[str] = [self.method]
        if self.weights:
            parts.append(("t=" if self.info.interpolates else "w=") + "/".join(f"{w:.2f}" for w in self.weights))
        if self.densities is not None:
            parts.append("d=" + "/".join(f"{d:.2f}" for d in self.densities))
        parts += [f"{name}={_format(value)}" for name, value in self.parameters]
        if self.normalize:
            parts.append("normalized")
        if self.is_random:
            parts.append(f"seed={self.seed}")
        if self.scopes:
            parts.append(f"and {len(self.scopes)} scope{'s' * (len(self.scopes) > 1)}")
        return " ".join(parts)

    @property
    def repeat_note(self) -> str:
        """By how much mergekit's own merge of this recipe differs and why, as one line."""
        if not self.in_mergekit:
            pairs = "" if self.info.importance is None else " and the run's training pairs"
            return (
                f"mergekit lacks the method '{self.method}' ({self.info.source}) and refuses this configuration. "
                f"SafeMerge repeats the merge from the recipe{pairs}."
            )
        if not self.is_random or (self.info.own and not self.option("drop_rate", 0.0)):
            return self._rounding_note
        if self.by_mergekit:
            return (
                f"The method draws random numbers. SafeMerge derives them from seed {self.seed} and each tensor's "
                "name, mergekit from its process's global state, so its weights differ."
            )
        return (
            f"Entries are dropped at random. SafeMerge derives the masks from seed {self.seed}, mergekit draws others, "
            "so its weights differ. In mergekit_config.yml each weight is already divided by its density."
        )

    @property
    def _rounding_note(self) -> str:
        """What float32 arithmetic in another order changes; `tests/core/jobs/test_saved_format.py` measures it."""
        if self.method == TASK_ARITHMETIC and len(self.experts) == 1:
            return "`mergekit-yaml` on this configuration gives the same weights, bit for bit."
        ties = ", and it may keep other entries where magnitudes are equal at the density's limit" * bool(
            self.densities
        )
        return (
            "`mergekit-yaml` on this configuration gives the same weights except for the last bit of fewer than 1 % of "
            f"the entries, because it adds in another order{ties}."
        )


def by_tensor(recipe: Recipe, tensors: Iterable[str]) -> dict[str, Recipe]:
    """The recipe of each tensor, without scopes; tensors of one scope share one object."""
    if not recipe.scopes:
        return dict.fromkeys(tensors, recipe)
    parts = [(scope, recipe.inside(scope)) for scope in recipe.scopes]
    rest = recipe.model_copy(update={"scopes": (), "blocks": 0})
    recipes = {}
    for tensor in tensors:
        block = block_of(tensor, recipe.blocks)
        recipes[tensor] = next((part for scope, part in parts if scope.holds(tensor, block)), rest)
    return recipes


def _check_values(method: str, experts: int, weights: tuple[float, ...], densities: tuple[float, ...] | None) -> None:
    """Raise a validation error for weights and densities that a method cannot have."""
    info, expected = METHODS[method], weight_count(method, experts)
    if len(weights) != expected:
        raise Refusal("wrong_weight_count", f"{method} needs {expected} weights, got {len(weights)}").error()
    if not all(math.isfinite(weight) for weight in weights):
        raise Refusal("weight_not_finite", "weights must be finite").error()
    if (densities is not None) != info.has_densities:
        verb = "needs" if info.has_densities else "has no"
        raise Refusal("densities_mismatch", f"{method} {verb} densities").error()
    if densities is not None and len(densities) != experts:
        raise Refusal("wrong_density_count", f"{method} needs one density for each expert").error()
    if any(not 0 < density <= 1 for density in densities or ()):
        raise Refusal("density_out_of_range", "densities must lie in (0, 1]").error()
    if info.interpolates and (experts != 1 or not 0 <= weights[0] <= 1):
        raise Refusal("t_out_of_range", f"{method} merges the base and one expert, at t in [0, 1]").error()
    if info.refuses_zero_sum and abs(sum(weights)) < 1e-8:
        raise Refusal("weights_cancel", f"{method} weights cancel: their sum is zero").error()


def _format(value: Value) -> str:
    return "/".join(f"{one:.3g}" for one in value) if isinstance(value, tuple) else f"{value:.3g}"


def effective_weights(recipe: Recipe) -> tuple[float, ...]:
    """Weights of the kept entries of the task vectors: DARE's are divided by the densities (arXiv 2311.03099).

    Normalized weights are divided by their sum first, except for TIES, which normalizes entry by entry.

    Raises:
        MergeError: weights that are to be normalized cancel.
    """
    weights = recipe.weights
    if recipe.normalize and not recipe.info.elects_signs:
        total = sum(weights)
        if abs(total) < 1e-8:
            message = f"{recipe.label}: the weights cancel, so they cannot be divided by their sum."
            raise MergeError(message, code="weights-cancel")
        weights = tuple(weight / total for weight in weights)
    if not recipe.drops_at_random:
        return weights
    return tuple(weight / density for weight, density in zip(weights, recipe.densities or (), strict=True))


def task_weights(recipe: Recipe) -> tuple[float, ...]:
    """Weights of the task vectors; those of a linear merge are its experts' normalized weights (paper Eq. 2)."""
    if not METHODS[recipe.method].merges_base:
        return effective_weights(recipe)
    total = sum(recipe.weights)
    return tuple(weight / total for weight in recipe.weights[1:])


def equal_weights(method: str, base: str, experts: tuple[str, ...], *, base_is_member: bool = True) -> Recipe:
    """The plain merge: every model of the pool has the same weight 1/N (SLERP: t = 1/2), and no entry is dropped.

    Args:
        method: with a fast path.
        base: model that task vectors are taken from.
        experts: the merged models.
        base_is_member: False for an outside ancestor, which is none of the N models and gets no weight.
    """
    info, share = METHODS[method], 1.0 / (len(experts) + base_is_member)
    if info.merges_base:
        weights = (share * base_is_member, *(share,) * len(experts))
        return Recipe(method=method, base=base, experts=experts, weights=weights)
    densities = (1.0,) * len(experts) if info.has_densities else None
    return Recipe(method=method, base=base, experts=experts, weights=(share,) * len(experts), densities=densities)
