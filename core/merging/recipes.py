"""A recipe: which models are merged, by which method and with which numbers; and its mergekit configuration.

mergekit is the authority on what a recipe means. `to_mergekit` gives the configuration that `mergekit-yaml` runs to the
same weights; the fast path in `core.merging.engine` is tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, model_validator

from core.specs import Method

if TYPE_CHECKING:
    from mergekit.config import MergeConfiguration


class Recipe(BaseModel):
    """One merge.

    Attributes:
        method: merge method.
        base: reference of the model that task vectors are taken from.
        experts: references of the merged models, in the order of `weights`.
        weights: one weight for each expert; for `linear` the base's own weight comes first.
        densities: share of each task vector's entries kept by magnitude (TIES only).
    """

    model_config = ConfigDict(frozen=True)

    method: Method
    base: str
    experts: tuple[str, ...]
    weights: tuple[float, ...]
    densities: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _lengths_agree(self) -> Recipe:
        expected = len(self.experts) + (1 if self.method == "linear" else 0)
        if len(self.weights) != expected:
            raise ValueError(f"{self.method} needs {expected} weights, got {len(self.weights)}")
        if (self.densities is not None) != (self.method == "ties"):
            raise ValueError("densities belong to ties, and ties needs them")
        if self.densities is not None and len(self.densities) != len(self.experts):
            raise ValueError("one density for each expert")
        if any(not 0 < density <= 1 for density in self.densities or ()):
            raise ValueError("densities lie in (0, 1]")
        if self.method == "linear" and abs(sum(self.weights)) < 1e-8:
            raise ValueError("linear weights cancel: their sum is zero")
        return self

    @property
    def label(self) -> str:
        """A short text such as `ties w=0.62 d=0.48`."""
        parts = ["w=" + "/".join(f"{w:.2f}" for w in self.weights)]
        if self.densities is not None:
            parts.append("d=" + "/".join(f"{d:.2f}" for d in self.densities))
        return f"{self.method} {' '.join(parts)}"

    def to_mergekit(self, out_dtype: str = "bfloat16", names: Mapping[str, str] | None = None) -> MergeConfiguration:
        """The same merge as mergekit's configuration, calculated in float32.

        Args:
            out_dtype: number format of the written weights.
            names: how mergekit names a reference it does not know, such as `demo/NAME`; others stay as they are.
        """
        from mergekit.config import MergeConfiguration

        names = names or {}
        base, *experts = (names.get(name, name) for name in (self.base, *self.experts))
        common = {"merge_method": self.method, "dtype": "float32", "out_dtype": out_dtype}
        return MergeConfiguration.model_validate(common | self._mergekit_models(base, experts))

    def _mergekit_models(self, base: str, experts: Sequence[str]) -> dict[str, Any]:
        if self.method == "linear":
            models = zip((base, *experts), self.weights, strict=True)
            return {
                "models": [{"model": name, "parameters": {"weight": weight}} for name, weight in models],
                "parameters": {"normalize": True},
            }
        densities = self.densities or (None,) * len(self.experts)
        models_parameters = [
            {"weight": weight} if density is None else {"weight": weight, "density": density}
            for weight, density in zip(self.weights, densities, strict=True)
        ]
        return {
            "base_model": base,
            "models": [
                {"model": name, "parameters": values} for name, values in zip(experts, models_parameters, strict=True)
            ],
            "parameters": {"normalize": False, "lambda": 1.0},
        }


def equal_weights(method: Method, base: str, experts: tuple[str, ...], *, base_is_member: bool = True) -> Recipe:
    """The plain merge: every model of the pool with the same weight 1/N, nothing trimmed.

    Args:
        base_is_member: False for an outside ancestor, which is none of the N models and gets no weight.
    """
    share = 1.0 / (len(experts) + base_is_member)
    if method == "linear":
        weights = (share * base_is_member, *(share,) * len(experts))
        return Recipe(method=method, base=base, experts=experts, weights=weights)
    densities = (1.0,) * len(experts) if method == "ties" else None
    return Recipe(method=method, base=base, experts=experts, weights=(share,) * len(experts), densities=densities)
