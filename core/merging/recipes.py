"""A recipe: which models are merged, by which method and with which numbers; and its mergekit configuration.

mergekit is the authority on what a recipe means. `to_mergekit` gives the configuration that `mergekit-yaml` runs to the
same weights; the fast path in `core.merging.engine` is tested against it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from core.merging.methods import FAST, METHODS, Value, has, merged_by_mergekit, takes_base, weight_count
from core.specs import MergeMethod, Method

if TYPE_CHECKING:
    from mergekit.config import MergeConfiguration

DARE_METHODS: tuple[Method, ...] = ("dare_ties", "dare_linear")
SPARSE_METHODS: tuple[Method, ...] = ("ties", *DARE_METHODS)


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
    """

    model_config = ConfigDict(frozen=True)

    method: MergeMethod
    base: str
    experts: tuple[str, ...]
    weights: tuple[float, ...]
    densities: tuple[float, ...] | None = None
    seed: int = Field(default=0, ge=0)
    parameters: tuple[tuple[str, Value], ...] = Field(default=(), exclude_if=lambda parameters: not parameters)

    @field_validator("parameters", mode="before")
    @classmethod
    def _pairs_in_order(cls, value: Any) -> Any:
        return tuple(sorted(value.items())) if isinstance(value, Mapping) else value

    @field_serializer("parameters")
    def _mapping(self, value: tuple[tuple[str, Value], ...]) -> dict[str, Value]:
        return dict(value)

    @model_validator(mode="after")
    def _lengths_agree(self) -> Recipe:
        expected = weight_count(self.method, len(self.experts))
        if len(self.weights) != expected:
            raise ValueError(f"{self.method} needs {expected} weights, got {len(self.weights)}")
        if not all(math.isfinite(weight) for weight in self.weights):
            raise ValueError("weights must be finite")
        if (self.densities is not None) != _is_sparse(self.method):
            raise ValueError("densities belong to ties, dare_ties and dare_linear, which need them")
        if self.densities is not None and len(self.densities) != len(self.experts):
            raise ValueError("one density for each expert")
        if any(not 0 < density <= 1 for density in self.densities or ()):
            raise ValueError("densities lie in (0, 1]")
        if self.method == "slerp" and (len(self.experts) != 1 or not 0 <= self.weights[0] <= 1):
            raise ValueError("slerp merges the base and one expert, at t in [0, 1]")
        if self.method in ("linear", "multislerp") and abs(sum(self.weights)) < 1e-8:
            raise ValueError(f"{self.method} weights cancel: their sum is zero")
        if unknown := [name for name, _ in self.parameters if not has(self.method, name)]:
            raise ValueError(f"{self.method} has no parameter {unknown[0]}")
        return self

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
        if self.is_random:
            parts.append(f"seed={self.seed}")
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

    def to_mergekit(
        self, out_dtype: str = "bfloat16", names: Mapping[str, str] | None = None, tokenizer_source: str | None = None
    ) -> MergeConfiguration:
        """The same merge as mergekit's configuration, calculated in float32.

        For methods that draw random numbers it is the same merge but for those: mergekit draws others, from its
        process's global random state. Unless the recipe says otherwise, DARE's rescaling is switched off and each
        weight divided by its density instead, as mergekit 0.1 would make each tensor's L1 norm what it was, where DARE
        (arXiv 2311.03099) divides by the density.

        Args:
            out_dtype: number format of the written weights.
            names: how mergekit names a reference it does not know, such as `demo/NAME`; others stay as they are.
            tokenizer_source: model whose vocabulary the merge has; None where all have the same.
        """
        from mergekit.config import MergeConfiguration

        names = names or {}
        base, *experts = (names.get(name, name) for name in (self.base, *self.experts))
        common = {"merge_method": self.method, "dtype": "float32", "out_dtype": out_dtype}
        if tokenizer_source is not None:
            common["tokenizer_source"] = names.get(tokenizer_source, tokenizer_source)
        parts = self._registered_models if self.by_mergekit else self._mergekit_models
        return MergeConfiguration.model_validate(common | parts(base, experts))

    def _registered_models(self, base: str, experts: Sequence[str]) -> dict[str, Any]:
        """Models and parameters of a method that mergekit itself merges."""
        with_base = takes_base(self.method, len(self.experts))
        names = experts if with_base else (base, *experts)
        own: list[dict[str, Value]] = [{} for _ in names]
        shared = {}
        lists = {"weight": self.weights, "density": self.densities or ()}
        for name, value in (*lists.items(), *self.parameters):
            if isinstance(value, tuple):
                for values, one in zip(own, value, strict=False):
                    values[name] = one
            else:
                shared[name] = value
        models = [
            {"model": name, **({"parameters": part} if part else {})} for name, part in zip(names, own, strict=True)
        ]
        return {**({"base_model": base} if with_base else {}), "models": models, "parameters": shared}

    def _mergekit_models(self, base: str, experts: Sequence[str]) -> dict[str, Any]:
        if self.method == "linear":
            models = zip((base, *experts), self.weights, strict=True)
            return {
                "models": [{"model": name, "parameters": {"weight": weight}} for name, weight in models],
                "parameters": {"normalize": True},
            }
        if self.method == "slerp":
            return {
                "base_model": base,
                "models": [{"model": name} for name in (base, *experts)],
                "parameters": {"t": self.weights[0]},
            }
        densities = self.densities or (None,) * len(self.experts)
        models_parameters = [
            {"weight": weight} if density is None else {"weight": weight, "density": density}
            for weight, density in zip(effective_weights(self), densities, strict=True)
        ]
        return {
            "base_model": base,
            "models": [
                {"model": name, "parameters": values} for name, values in zip(experts, models_parameters, strict=True)
            ],
            "parameters": {"normalize": False, "lambda": 1.0}
            | ({"rescale": False} if self.drops_at_random else {})
            | dict(self.parameters),
        }


def _is_sparse(method: str) -> bool:
    return method in SPARSE_METHODS or (method not in FAST and has(method, "density"))


def _shown(value: Value) -> str:
    return "/".join(f"{one:.3g}" for one in value) if isinstance(value, tuple) else f"{value:.3g}"


def effective_weights(recipe: Recipe) -> tuple[float, ...]:
    """Weights of what is kept of the task vectors: DARE's are divided by the densities, which makes up for the rest."""
    if not recipe.drops_at_random:
        return recipe.weights
    return tuple(weight / density for weight, density in zip(recipe.weights, recipe.densities or (), strict=True))


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
