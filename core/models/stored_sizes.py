"""Sizes in bytes of what a pool stores between merges, from configurations and safetensors headers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.contracts.run_spec import RunSpec
from core.models.metadata import ModelMetadata

_F32, _INDEX = 4, 8
_BINS = 1 << 15
_WIDTHS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


class PoolSizes:
    """Sizes of the pool's tensors; task vectors are differences from the anchor (the ancestor, or else the base)."""

    def __init__(self, spec: RunSpec, merged: Sequence[ModelMetadata], *, compact: bool) -> None:
        named = {str(model.ref): model for model in merged}
        self.anchor = named.get(spec.pool.ancestor or spec.pool.base, merged[0])
        self.experts = [model for model in named.values() if model is not self.anchor]
        self.compact = compact

    @property
    def base_sizes(self) -> list[int]:
        """Bytes of each of the anchor's tensors."""
        merged_into = adapted_tensors(self.anchor)
        return [
            math.prod(facts.shape) * (_F32 if not self.compact or name in merged_into else width(facts.dtype))
            for name, facts in self.anchor.own_tensors.items()
        ]

    def expert_sizes(self, expert: ModelMetadata) -> list[int]:
        """Bytes of each tensor of a task vector; those that an adapter changes are stored in float32."""
        own, changed = adapted_tensors(expert), self._changed(expert)
        return [
            math.prod(facts.shape) * (_F32 if not self.compact or name in own else width(facts.dtype))
            for name, facts in expert.own_tensors.items()
            if name in changed
        ]

    def index_bytes(self, expert: ModelMetadata) -> int:
        """Upper bound in bytes of the magnitude histograms that trim a task vector."""
        changed = self._changed(expert)
        sizes = [math.prod(facts.shape) for name, facts in expert.own_tensors.items() if name in changed]
        return sum(min(size, _BINS) * _INDEX for size in sizes)

    def changed_entries(self, expert: ModelMetadata) -> int:
        """Number of weights in the tensors that may differ between an expert and the anchor."""
        changed = self._changed(expert)
        return sum(math.prod(facts.shape) for name, facts in expert.own_tensors.items() if name in changed)

    @property
    def largest_entries(self) -> int:
        """Number of weights of the anchor's largest tensor."""
        return max(math.prod(facts.shape) for facts in self.anchor.own_tensors.values())

    @property
    def lower_blocks_stay(self) -> bool:
        """Whether all experts are adapters on the anchor's base, so that the first layers may be equal in all."""
        return all(len(self._changed(expert)) < len(expert.own_tensors) for expert in self.experts)

    def _changed(self, expert: ModelMetadata) -> frozenset[str]:
        """Names of the tensors that may differ between an expert and the anchor."""
        if _same_base(expert, self.anchor):
            return adapted_tensors(expert) | adapted_tensors(self.anchor)
        return frozenset(expert.own_tensors)


def adapted_tensors(model: ModelMetadata) -> frozenset[str]:
    """Names of the tensors that a model's adapter changes; all of them where the adapter saves whole modules."""
    if model.adapter is None:
        return frozenset()
    changed = set()
    for name in model.adapter.tensors:
        target, lora, _ = name.removeprefix("base_model.model.").partition(".lora_")
        if not lora:
            return frozenset(model.own_tensors)
        changed.add(f"{target}.weight")
    return frozenset(changed & model.own_tensors.keys())


def width(dtype: str) -> int:
    """Bytes of one value of a safetensors type; unknown ones count as float32."""
    return _WIDTHS.get(dtype, _F32)


def _same_base(one: ModelMetadata, other: ModelMetadata) -> bool:
    if one.ref.kind == other.ref.kind == "demo":
        return True
    return one.ref.base == other.ref.base


def stored_bytes(sizes: Sequence[int], pinned: bool) -> int:
    """Bytes of separately stored tensors; pinned memory is allocated in powers of two."""
    return sum(1 << (size - 1).bit_length() if pinned and size else size for size in sizes)
