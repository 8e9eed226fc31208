"""Plans the memory of a run before any weights are loaded, and chooses where the pool's weights are stored.

All sizes follow from configurations and safetensors headers. There are four modes of storage, fastest first; a merge
has the same weights in each (`core.merging.storage`):

- resident: everything in float32 on the device;
- compact: base and experts in their checkpoints' own format on the device, task vectors formed piece by piece;
- streamed: float32 in host memory, sent to the device tensor by tensor during a merge;
- compact on the host: both.

For two models of N parameters, resident on a GPU: the live model takes 2 bytes per parameter, the base 4 and the
expert's task vector 4, together 10, and reading a model takes 4 more in host memory. Without a GPU all of it is host
memory, where the live model counts 4: 16 bytes per parameter. Offloading (streamed) makes no sense there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from core.contracts.merge_methods import METHODS, merges_whole_tensors
from core.contracts.number_formats import NumberFormat
from core.contracts.run_spec import Memory, RunSpec
from core.models.metadata import ModelMetadata

Side = Literal["device", "host"]
Mode = Literal["resident", "compact", "streamed", "compact on the host"]

_F32, _BF16, _INDEX = 4, 2, 8
_BINS = 1 << 15
_WIDTHS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
_LIBRARIES_BYTES = 900_000_000
_CUDA_BYTES = 700_000_000
COMFORTABLE_SHARE = 0.8
"""A mode that needs more than this share of the free memory is chosen only when every other mode does too."""
# Assumed lengths: of a prompt, a reply, a row of scoring, and a batch of replies (`core.models.generation`).
_PROMPT_TOKENS = 96
_LONGEST_REPLY = 512
_ROW_TOKENS = 1024
_GENERATION_TOKENS = 6144
_EVERY_MODE: tuple[Mode, ...] = ("resident", "compact", "streamed", "compact on the host")


class FreeMemory(NamedTuple):
    """Free memory in bytes; `device` is None where the processor computes."""

    host: int
    device: int | None = None


class Part(NamedTuple):
    """One item that takes memory, on one side."""

    name: str
    side: Side
    size_bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """One mode of storage with its peak memory, item by item.

    Attributes:
        mode: where and in which format weights are stored.
        parts: items that are in memory at the same time. Models are read one after the other, so the item for reading
            is as large as the largest of them.
        free: the memory of this machine that is free.
    """

    mode: Mode
    parts: tuple[Part, ...]
    free: FreeMemory

    @property
    def on_host(self) -> bool:
        return self.mode in ("streamed", "compact on the host")

    @property
    def compact(self) -> bool:
        return self.mode in ("compact", "compact on the host")

    def needed(self, side: Side) -> int:
        """Bytes at the peak on one side; without a GPU all of them are host memory."""
        if self.free.device is None:
            return sum(part.size_bytes for part in self.parts) if side == "host" else 0
        return sum(part.size_bytes for part in self.parts if part.side == side)

    def fits(self, share: float = 1.0) -> bool:
        """Whether the plan needs at most `share` of the free memory."""
        device = self.free.device
        return self.needed("host") <= share * self.free.host and (
            device is None or self.needed("device") <= share * device
        )

    def as_json(self) -> dict[str, object]:
        """The plan as `preflight --json` prints it."""
        sides: list[Side] = ["host"] if self.free.device is None else ["device", "host"]
        return {
            "mode": self.mode,
            "fits": self.fits(),
            "needed_bytes": {side: self.needed(side) for side in sides},
            "free_bytes": {"host": self.free.host, "device": self.free.device},
            "parts": [part._asdict() for part in self.parts],
        }


def free_memory(host: int) -> FreeMemory:
    """The free memory of this machine: `host` bytes, and what the GPU reports where there is one."""
    import torch

    from core.models.out_of_memory import free_device_bytes

    return FreeMemory(host, free_device_bytes()) if torch.cuda.is_available() else FreeMemory(host)


def open_plans(
    spec: RunSpec, merged: Sequence[ModelMetadata], others: Sequence[ModelMetadata], free: FreeMemory
) -> list[MemoryPlan]:
    """The plans that `pool.memory` allows, fastest first, whether or not they fit.

    Args:
        spec: of the run.
        merged: base, experts and ancestor, the base first.
        others: generator and guards, which are in memory beside the pool while training data is made.
        free: the memory that is free.
    """
    return [plan_for(mode, spec, merged, others, free) for mode in _allowed_modes(spec.pool.memory, free)]


def choose_plan(plans: Sequence[MemoryPlan]) -> MemoryPlan:
    """The fastest plan that fits comfortably, else the fastest that fits, else the last one."""
    comfortable = [plan for plan in plans if plan.fits(COMFORTABLE_SHARE)]
    fitting = [plan for plan in plans if plan.fits()]
    return (comfortable or fitting or [plans[-1]])[0]


def _allowed_modes(memory: Memory, free: FreeMemory) -> tuple[Mode, ...]:
    if memory == "auto":
        return _EVERY_MODE[:2] if free.device is None else _EVERY_MODE
    if memory == "compact" and free.device is not None:
        return "compact", "compact on the host"
    return (memory,)


def plan_for(
    mode: Mode, spec: RunSpec, merged: Sequence[ModelMetadata], others: Sequence[ModelMetadata], free: FreeMemory
) -> MemoryPlan:
    """The plan of a run in one mode of storage; arguments as for `open_plans`."""
    live = _live_width(spec.pool.dtype, free)
    counted = _PoolSizes(spec, merged, compact=mode.startswith("compact"))
    side: Side = "host" if mode in ("streamed", "compact on the host") else "device"
    pinned = side == "host" and free.device is not None
    base = counted.anchor
    parts = [Part(f"base {base.ref}", side, _stored(counted.base_sizes, pinned))]
    parts += [
        Part(f"task vector of {expert.ref}", side, _stored(counted.expert_sizes(expert), pinned))
        for expert in counted.experts
    ]
    parts.append(Part("live model", "device", base.parameters * live))
    if METHODS[spec.search.method].drops == "magnitude":
        parts.append(Part("trim counts", "device", sum(counted.index_bytes(expert) for expert in counted.experts)))
    whole = merges_whole_tensors(spec.search.method, spec.search.parameters)
    parts.append(Part("working values of a merge", "device", _merging_bytes(counted, side, free, whole=whole)))
    parts += _scoring_parts(spec, counted, live)
    parts += [Part(f"{model.ref}", "device", model.parameters * live) for model in others]
    parts.append(Part("reading one model", "host", max(_reading_bytes(m, counted.compact) for m in (*merged, *others))))
    parts.append(Part("libraries", "host", _LIBRARIES_BYTES))
    if free.device is not None:
        parts.append(Part("CUDA", "device", _CUDA_BYTES))
    return MemoryPlan(mode, tuple(part for part in parts if part.size_bytes), free)


def plan_for_chat(model: ModelMetadata, free: FreeMemory, dtype: NumberFormat = "auto") -> MemoryPlan:
    """The plan for one more model that only answers prompts; loading merges an adapter in float32."""
    live = _live_width(dtype, free)
    reading = _F32 if model.adapter else (0 if free.device is None else live)
    parts = (
        Part(str(model.ref), "device", model.parameters * live),
        Part("reading it", "host", model.parameters * reading),
    )
    return MemoryPlan("resident", parts, free)


def plan_for_measuring(
    model: ModelMetadata, guards: Sequence[ModelMetadata], free: FreeMemory, dtype: NumberFormat = "auto"
) -> MemoryPlan:
    """The plan for measuring one model, with the guards that judge its replies in memory beside it."""
    live = _live_width(dtype, free)
    parts = [
        *plan_for_chat(model, free, dtype).parts,
        Part("a batch of replies (estimate)", "device", _replies_bytes(model, live)),
        *(Part(f"guard {guard.ref}", "device", guard.parameters * live) for guard in guards),
        Part("libraries", "host", _LIBRARIES_BYTES),
        Part("CUDA", "device", _CUDA_BYTES if free.device is not None else 0),
    ]
    return MemoryPlan("resident", tuple(part for part in parts if part.size_bytes), free)


class _PoolSizes:
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


def _live_width(dtype: NumberFormat, free: FreeMemory) -> int:
    """Bytes of one value of a model that computes; `auto` on a processor counts as float32, the larger of the two."""
    if dtype == "auto":
        return _F32 if free.device is None else _BF16
    return _F32 if dtype == "float32" else _BF16


def _same_base(one: ModelMetadata, other: ModelMetadata) -> bool:
    if one.ref.kind == other.ref.kind == "demo":
        return True
    return one.ref.base == other.ref.base


def _stored(sizes: Sequence[int], pinned: bool) -> int:
    """Bytes of separately stored tensors; pinned memory is allocated in powers of two."""
    return sum(1 << (size - 1).bit_length() if pinned and size else size for size in sizes)


def _merging_bytes(counted: _PoolSizes, side: Side, free: FreeMemory, *, whole: bool) -> int:
    """Bytes that a merge needs beside the weights: pieces of working values; streamed, also one tensor of each model.

    mergekit merges `whole` tensors instead of pieces, for which a compact pool forms whole task vectors.
    """
    from core.merging.arithmetic import piece_entries

    experts = len(counted.experts)
    largest = max(math.prod(facts.shape) for facts in counted.anchor.own_tensors.values())
    piece = largest if whole else min(largest, piece_entries("cpu" if free.device is None else "cuda"))
    working = (3 + 2 * experts) * piece * _F32
    formed = experts * largest * _F32 if whole and counted.compact else 0
    return working + formed + (largest * _F32 * (1 + experts) if side == "host" else 0)


def _reading_bytes(model: ModelMetadata, compact: bool) -> int:
    """Host memory while a model is read: float32, or in a compact pool its own format where all tensors share one."""
    formats = {facts.dtype for facts in model.own_tensors.values()}
    own = compact and model.adapter is None and len(formats) == 1
    return model.parameters * (width(model.dtype) if own else _F32)


def _scoring_parts(spec: RunSpec, counted: _PoolSizes, live: int) -> list[Part]:
    """Estimates from the configuration: one row of scoring, a batch of replies, and cached hidden states."""
    config = counted.anchor.config
    hidden, heads = int(config.get("hidden_size") or 0), int(config.get("num_attention_heads") or 1)
    vocabulary, inner = int(config.get("vocab_size") or 0), int(config.get("intermediate_size") or 0)
    longest = _PROMPT_TOKENS + min(spec.data.reply_tokens, _LONGEST_REPLY)
    tokens = max(_ROW_TOKENS, longest)
    row = tokens * (vocabulary * (live + 2 * _F32) + live * (8 * hidden + 3 * inner))
    row += tokens**2 * heads * (live + _F32)
    replies = _replies_bytes(counted.anchor, live)
    parts = [Part("scoring or replies (estimate)", "device", max(row, replies))]
    if counted.lower_blocks_stay:
        pairs = spec.data.safety.pairs + spec.data.domain.pairs
        parts.append(Part("cached hidden states (estimate)", "host", pairs * longest * hidden * live))
    return parts


def _replies_bytes(model: ModelMetadata, live: int) -> int:
    """Bytes of the key-value cache of a batch of replies, from the configuration."""
    config = model.config
    layers, hidden = int(config.get("num_hidden_layers") or 0), int(config.get("hidden_size") or 0)
    heads = int(config.get("num_attention_heads") or 1)
    cached = int(config.get("num_key_value_heads") or heads) * int(config.get("head_dim") or hidden // heads)
    return _GENERATION_TOKENS * layers * 2 * cached * live


def available_memory_bytes() -> int:
    """Host memory that is available now; the container's limit counts where it leaves less than the machine has."""
    import psutil

    machine = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return machine
    return min(machine, int(limit) - used) if limit.isdigit() else machine


def gigabytes(size_bytes: float) -> str:
    """Bytes as "0.27 GB"."""
    return f"{size_bytes / 1e9:.2f} GB"
