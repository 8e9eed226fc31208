"""A recipe: which models are merged, by which method and with which numbers; and its mergekit configuration.

mergekit is the authority on what a recipe means. `to_mergekit` gives the configuration that `mergekit-yaml` runs to the
same weights; the fast path in `core.merging.engine` is tested against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from core.errors import MergeError
from core.merging.scopes import Scope, block_of
from core.specs import Method

if TYPE_CHECKING:
    from mergekit.config import MergeConfiguration

DARE_METHODS: tuple[Method, ...] = ("dare_ties", "dare_linear")
SPARSE_METHODS: tuple[Method, ...] = ("ties", *DARE_METHODS)
NORMALIZING_METHODS: tuple[Method, ...] = ("ties", "task_arithmetic", "dare_linear")
"""Methods whose weights may be divided by their sum; a linear merge's always are."""
_ADDED_FIELDS = ("scopes", "blocks", "normalize")


class Recipe(BaseModel):
    """One merge.

    Attributes:
        method: merge method.
        base: reference of the model that task vectors are taken from.
        experts: references of the merged models, in the order of `weights`.
        weights: one weight for each expert; for `linear` the base's own weight comes first; for `slerp` the one
            number is t in [0, 1], from the base (0) to its only expert (1).
        densities: share of each task vector's entries that is kept: by magnitude (TIES), or at random and then divided
            by the density (DARE).
        seed: of DARE's masks, which follow from it, the expert's reference and the tensor's name
            (`core.merging.dare`); the other methods draw none.
        scopes: tensors with numbers of their own, the first that fits counts. The others get `weights` and `densities`;
            where the scopes hold all that any expert changes, those are the scopes' means, for reading.
        blocks: how many the model has; needed where a scope names some.
        normalize: weights are divided by their sum: of all experts, or for TIES, entry by entry, of those that agree.
    """

    model_config = ConfigDict(frozen=True)

    method: Method
    base: str
    experts: tuple[str, ...]
    weights: tuple[float, ...]
    densities: tuple[float, ...] | None = None
    seed: int = Field(default=0, ge=0)
    scopes: tuple[Scope, ...] = ()
    blocks: int = Field(default=0, ge=0)
    normalize: bool = False

    @model_validator(mode="after")
    def _means_something(self) -> Recipe:
        _check_numbers(self.method, len(self.experts), self.weights, self.densities)
        for scope in self.scopes:
            _check_numbers(self.method, len(self.experts), scope.weights, scope.densities)
            if scope.blocks is not None and scope.blocks[1] > self.blocks:
                raise ValueError(f"a scope names {scope.place}, the model has {self.blocks} blocks")
        if self.normalize and self.method not in NORMALIZING_METHODS:
            raise ValueError(f"normalize belongs to {', '.join(NORMALIZING_METHODS)}")
        return self

    @model_serializer(mode="wrap")
    def _as_written_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what a plain recipe does not have, so that its record is what it always was."""
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if value or name not in _ADDED_FIELDS}

    def inside(self, scope: Scope) -> Recipe:
        """The recipe of one scope's tensors, without scopes."""
        numbers = {"weights": scope.weights, "densities": scope.densities}
        return self.model_copy(update={"scopes": (), "blocks": 0, **numbers})

    @property
    def drops_at_random(self) -> bool:
        """Whether the method is DARE: then `seed` counts."""
        return self.method in DARE_METHODS

    @property
    def label(self) -> str:
        """A short text such as `ties w=0.62 d=0.48`."""
        parts = ["t=" if self.method == "slerp" else "w="]
        parts[0] += "/".join(f"{w:.2f}" for w in self.weights)
        if self.densities is not None:
            parts.append("d=" + "/".join(f"{d:.2f}" for d in self.densities))
        if self.normalize:
            parts.append("normalized")
        if self.drops_at_random:
            parts.append(f"seed={self.seed}")
        if self.scopes:
            parts.append(f"and {len(self.scopes)} scope{'s' * (len(self.scopes) > 1)}")
        return f"{self.method} {' '.join(parts)}"

    @property
    def repeat_note(self) -> str:
        """What keeps mergekit from writing the same weights, as one line; empty where nothing does."""
        if not self.drops_at_random:
            return ""
        return (
            f"Entries are dropped at random: SafeMerge's masks follow from seed {self.seed}, mergekit draws others, so "
            "its weights differ. In mergekit_config.yml each weight is divided by its density already."
        )

    def to_mergekit(self, out_dtype: str = "bfloat16", names: Mapping[str, str] | None = None) -> MergeConfiguration:
        """The same merge as mergekit's configuration, calculated in float32.

        For DARE it is the same merge but for the masks: mergekit draws others, from its process's global random state.
        Its rescaling is switched off and each weight divided by its density instead, as mergekit 0.1 would make
        each tensor's L1 norm what it was, where DARE (arXiv 2311.03099) divides by the density.

        Args:
            out_dtype: number format of the written weights.
            names: how mergekit names a reference it does not know, such as `demo/NAME`; others stay as they are.
        """
        from core.merging.mergekit_config import configuration

        return configuration(self, out_dtype, names or {})


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
    method: Method, experts: int, weights: tuple[float, ...], densities: tuple[float, ...] | None
) -> None:
    """Raises ValueError for weights and densities that mean nothing to a method."""
    expected = experts + (1 if method == "linear" else 0)
    if len(weights) != expected:
        raise ValueError(f"{method} needs {expected} weights, got {len(weights)}")
    if not all(math.isfinite(weight) for weight in weights):
        raise ValueError("weights must be finite")
    if (densities is not None) != (method in SPARSE_METHODS):
        raise ValueError("densities belong to ties, dare_ties and dare_linear, which need them")
    if densities is not None and len(densities) != experts:
        raise ValueError("one density for each expert")
    if any(not 0 < density <= 1 for density in densities or ()):
        raise ValueError("densities lie in (0, 1]")
    if method == "slerp" and (experts != 1 or not 0 <= weights[0] <= 1):
        raise ValueError("slerp merges the base and one expert, at t in [0, 1]")
    if method == "linear" and abs(sum(weights)) < 1e-8:
        raise ValueError("linear weights cancel: their sum is zero")


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
