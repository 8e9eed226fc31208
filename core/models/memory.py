"""Plans the memory of a run before any weights are loaded, and chooses where the pool's weights are stored.

All sizes follow from configurations and safetensors headers. There are five modes of storage, fastest first; a merge
has the same weights in each (`core.merging.storage`):

- resident: everything in float32 on the device;
- compact: base and experts in their checkpoints' own format on the device, task vectors formed piece by piece;
- experts on the host: compact, with the experts in host memory, sent to the device tensor by tensor during a merge;
- streamed: float32 in host memory, base and experts;
- compact on the host: compact, base and experts in host memory.

A part counts in the phases in which it is in memory: a generator while training data is made, and guards whenever
replies are judged. If guards do not fit beside the search, and the search judges nothing, they are unloaded meanwhile.

For two models of N parameters, resident on a GPU: the live model takes 2 bytes per parameter, the base 4 and the
expert's task vector 4, together 10, and reading a model takes 4 more in host memory. Without a GPU all of it is host
memory, where the live model counts 4: 16 bytes per parameter. Offloading (streamed) makes no sense there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from core.contracts.merge_methods import METHODS, merges_whole_tensors
from core.contracts.number_formats import NumberFormat
from core.contracts.optimizers import OPTIMIZERS
from core.contracts.run_spec import Memory, RunSpec
from core.models.metadata import ModelMetadata
from core.models.stored_sizes import PoolSizes, stored_bytes, width

Side = Literal["device", "host"]
Mode = Literal["resident", "compact", "experts on the host", "streamed", "compact on the host"]
PlanPhase = Literal["loading", "data", "measuring", "search"]
PHASES: tuple[PlanPhase, ...] = ("loading", "data", "measuring", "search")
_COMPUTING, _SCORING, _IMPORTANCE = PHASES[1:], PHASES[2:], PHASES[2:3]

_F32, _BF16 = 4, 2
_SORTED = 16
"""Bytes for each entry of a tensor whose importance scores are sorted."""
_LIBRARIES_BYTES = 900_000_000
_CUDA_BYTES = 700_000_000
COMFORTABLE_SHARE = 0.8
"""A mode that needs more than this share of the free host memory is chosen only when every other mode does too."""
COMFORTABLE_DEVICE_SHARE = 0.85
"""The same for a GPU, whose memory no other program uses."""
# Assumed lengths: of a prompt, a reply, a row of scoring, and a batch of replies (`core.models.generation`).
_PROMPT_TOKENS = 96
_LONGEST_REPLY = 512
_ROW_TOKENS = 1024
_GENERATION_TOKENS = 6144
_SCORING_PART = "scoring or replies (estimate)"
_EVERY_MODE: tuple[Mode, ...] = ("resident", "compact", "experts on the host", "streamed", "compact on the host")
_COMPACT: tuple[Mode, ...] = ("compact", "experts on the host", "compact on the host")
_ON_HOST: tuple[Mode, ...] = ("experts on the host", "streamed", "compact on the host")


class FreeMemory(NamedTuple):
    """Free memory in bytes; `device` is None where the processor computes."""

    host: int
    device: int | None = None


class Part(NamedTuple):
    """One item that takes memory, on one side, in some phases of a run."""

    name: str
    side: Side
    size_bytes: int
    phases: tuple[PlanPhase, ...] = PHASES


@dataclass(frozen=True)
class MemoryPlan:
    """One mode of storage with its peak memory, item by item.

    Attributes:
        mode: where and in which format weights are stored.
        parts: items, each with the phases in which it is in memory. Models are read one after the other, so the item
            for reading is as large as the largest of them.
        free: the memory of this machine that is free.
        unloads_guards: guards are unloaded before the search and loaded again after it.
    """

    mode: Mode
    parts: tuple[Part, ...]
    free: FreeMemory
    unloads_guards: bool = False

    @property
    def on_host(self) -> bool:
        return self.mode in _ON_HOST

    @property
    def compact(self) -> bool:
        return self.mode in _COMPACT

    @property
    def base_on_device(self) -> bool:
        return self.mode == "experts on the host"

    def needed(self, side: Side) -> int:
        """Bytes at the peak on one side; without a GPU all of them are host memory."""
        return sum(part.size_bytes for part in self.at_peak(side))

    def at_peak(self, side: Side) -> list[Part]:
        """The parts on one side in the phase in which they need most memory."""
        if self.free.device is None and side == "device":
            return []
        here = [part for part in self.parts if part.side == side or self.free.device is None]
        by_phase = [[part for part in here if phase in part.phases] for phase in PHASES]
        return max(by_phase, key=lambda parts: sum(part.size_bytes for part in parts))

    def fits(self, share: float = 1.0, device_share: float = 1.0) -> bool:
        """Whether the plan needs at most `share` of the free memory of the host, and `device_share` of the GPU's."""
        device = self.free.device
        return self.needed("host") <= share * self.free.host and (
            device is None or self.needed("device") <= device_share * device
        )

    @property
    def is_comfortable(self) -> bool:
        """Whether some memory stays free at the peak."""
        return self.fits(COMFORTABLE_SHARE, COMFORTABLE_DEVICE_SHARE)

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
    spec: RunSpec,
    merged: Sequence[ModelMetadata],
    others: Sequence[ModelMetadata],
    free: FreeMemory,
    guards: Sequence[ModelMetadata] = (),
) -> list[MemoryPlan]:
    """The plans that `pool.memory` allows, fastest first, whether or not they fit.

    Args:
        spec: of the run.
        merged: base, experts and ancestor, the base first.
        others: the generator, which is in memory beside the pool while training data is made.
        free: the memory that is free.
        guards: those that are models.
    """
    ways = (False, True) if guards and spec.evaluation.probe is None else (False,)
    return [
        plan_for(mode, spec, merged, others, free, guards, unloads_guards=unloads)
        for mode in _allowed_modes(spec.pool.memory, free)
        for unloads in ways
    ]


def choose_plan(plans: Sequence[MemoryPlan]) -> MemoryPlan:
    """The fastest plan that fits comfortably, else the fastest that fits, else the last one."""
    comfortable = [plan for plan in plans if plan.is_comfortable]
    fitting = [plan for plan in plans if plan.fits()]
    return (comfortable or fitting or [plans[-1]])[0]


def _allowed_modes(memory: Memory, free: FreeMemory) -> tuple[Mode, ...]:
    if memory == "auto":
        return _EVERY_MODE[:2] if free.device is None else _EVERY_MODE
    if memory == "compact" and free.device is not None:
        return _COMPACT
    return (memory,)


def plan_for(
    mode: Mode,
    spec: RunSpec,
    merged: Sequence[ModelMetadata],
    others: Sequence[ModelMetadata],
    free: FreeMemory,
    guards: Sequence[ModelMetadata] = (),
    *,
    unloads_guards: bool = False,
) -> MemoryPlan:
    """The plan of a run in one mode of storage; arguments as for `open_plans`."""
    live = _live_width(spec.pool.dtype, free)
    counted = PoolSizes(spec, merged, compact=mode in _COMPACT)
    parts = [*_stored_parts(mode, counted, free), Part("live model", "device", counted.anchor.parameters * live)]
    if METHODS[spec.search.method].drops == "magnitude":
        parts.append(
            Part("trim counts", "device", sum(counted.index_bytes(expert) for expert in counted.experts), _SCORING)
        )
    whole = merges_whole_tensors(spec.search.method, spec.search.parameters)
    parts.append(Part("working values of a merge", "device", _merging_bytes(counted, mode, free, whole=whole)))
    parts += [*_scoring_parts(spec, counted, live), *_importance_parts(spec, counted, mode)]
    judging: tuple[PlanPhase, ...] = ("data", "measuring") if unloads_guards else ("data", "measuring", "search")
    parts += [Part(f"{model.ref}", "device", model.parameters * live, ("data",)) for model in others]
    parts += [Part(f"{guard.ref}", "device", guard.parameters * live, judging) for guard in guards]
    readings: tuple[tuple[Sequence[ModelMetadata], tuple[PlanPhase, ...]], ...] = (
        (merged, ("loading",)),
        (others, ("data",)),
        (guards, judging),
    )
    for models, phases in readings:
        read = max((_reading_bytes(model, counted.compact) for model in models), default=0)
        parts.append(Part("reading one model", "host", read, phases))
    parts.append(Part("libraries", "host", _LIBRARIES_BYTES))
    if free.device is not None:
        parts.append(Part("CUDA", "device", _CUDA_BYTES))
        longer = _longer_rows(parts, counted, live, free)
        parts.append(Part("longer rows of scoring (estimate)", "device", longer, _SCORING))
    return MemoryPlan(mode, tuple(part for part in parts if part.size_bytes), free, unloads_guards)


def _stored_parts(mode: Mode, counted: PoolSizes, free: FreeMemory) -> list[Part]:
    """Base and task vectors where the mode stores them."""
    side: Side = "host" if mode in _ON_HOST else "device"
    base_side: Side = "device" if mode == "experts on the host" else side
    pinned = {"host": free.device is not None, "device": False}
    base = stored_bytes(counted.base_sizes, pinned[base_side])
    sizes = {str(expert.ref): counted.expert_sizes(expert) for expert in counted.experts}
    return [
        Part(f"base {counted.anchor.ref}", base_side, base),
        *(Part(f"task vector of {name}", side, stored_bytes(size, pinned[side])) for name, size in sizes.items()),
    ]


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


def _live_width(dtype: NumberFormat, free: FreeMemory) -> int:
    """Bytes of one value of a model that computes; `auto` on a processor counts as float32, the larger of the two."""
    if dtype == "auto":
        return _F32 if free.device is None else _BF16
    return _F32 if dtype == "float32" else _BF16


def _merging_bytes(counted: PoolSizes, mode: Mode, free: FreeMemory, *, whole: bool) -> int:
    """Bytes that a merge needs beside the weights: pieces of working values, and copies of tensors from the host.

    mergekit merges `whole` tensors instead of pieces, for which a compact pool forms whole task vectors.
    """
    from core.merging.arithmetic import piece_entries

    experts = len(counted.experts)
    largest = counted.largest_entries
    piece = largest if whole else min(largest, piece_entries("cpu" if free.device is None else "cuda"))
    working = (3 + 2 * experts) * piece * _F32
    formed = experts * largest * _F32 if whole and counted.compact else 0
    copied = 0 if mode not in _ON_HOST else experts + (mode != "experts on the host")
    plain = counted.compact and all(model.adapter is None for model in (counted.anchor, *counted.experts))
    return working + formed + copied * largest * (width(counted.anchor.dtype) if plain else _F32)


def _reading_bytes(model: ModelMetadata, compact: bool) -> int:
    """Host memory while a model is read: float32, or in a compact pool its own format where all tensors share one."""
    formats = {facts.dtype for facts in model.own_tensors.values()}
    own = compact and model.adapter is None and len(formats) == 1
    return model.parameters * (width(model.dtype) if own else _F32)


def _scoring_parts(spec: RunSpec, counted: PoolSizes, live: int) -> list[Part]:
    """Estimates from the configuration: one row of scoring, a batch of replies, and cached hidden states."""
    from core.models.row_budget import token_bytes

    config = counted.anchor.config
    hidden, heads = int(config.get("hidden_size") or 0), int(config.get("num_attention_heads") or 1)
    longest = _PROMPT_TOKENS + min(spec.data.reply_tokens, _LONGEST_REPLY)
    tokens = max(_ROW_TOKENS, longest)
    row = tokens * token_bytes(config, live)
    row += tokens**2 * heads * (live + _F32)
    replies = _replies_bytes(counted.anchor, live)
    parts = [Part(_SCORING_PART, "device", max(row, replies), _COMPUTING)]
    copies = 3 if _follows_gradients(spec) else 1  # for scoring, for gradients over all pairs, and for mini-batches
    if phases := _differentiating_phases(spec):
        layers = int(config.get("num_hidden_layers") or 0)
        # Blocks are checkpointed where their activations do not fit: the plan needs room for their inputs only.
        backward = layers * tokens * hidden * live + row + counted.largest_entries * (live + _F32)
        parts.append(Part("backward pass, checkpointed (estimate)", "device", backward, phases))
    if counted.lower_blocks_stay:
        pairs = spec.data.safety.pairs + spec.data.domain.pairs + (spec.benign.k if spec.benign else 0)
        parts.append(
            Part("cached hidden states (estimate)", "host", copies * pairs * longest * hidden * live, _SCORING)
        )
    return parts


def _importance_parts(spec: RunSpec, counted: PoolSizes, mode: Mode) -> list[Part]:
    """Importance scores of the weights, and their sums before the parents are measured; none for most methods."""
    if METHODS[spec.search.method].importance is None:
        return []
    side: Side = "host" if mode in _ON_HOST else "device"
    entries = [counted.changed_entries(expert) for expert in counted.experts]
    sums = max(entries) * _F32 + counted.largest_entries * _SORTED
    return [
        Part("importance scores", side, sum(entries) * _BF16, _SCORING),
        Part("sums of importance scores", side, sums, _IMPORTANCE),
    ]


def _longer_rows(parts: Sequence[Part], counted: PoolSizes, live: int, free: FreeMemory) -> int:
    """Bytes beyond a short row, or a batch of replies, that long rows take where the plan leaves memory for them."""
    from core.models.row_budget import fitting_rows, token_bytes

    if live != _BF16:  # variable-length attention needs bfloat16 or float16
        return 0
    needed = MemoryPlan("resident", tuple(part for part in parts if set(part.phases) & set(_SCORING)), free)
    counted_row = next(part.size_bytes for part in parts if part.name == _SCORING_PART)
    per_token = token_bytes(counted.anchor.config, live)
    left = (free.device or 0) - needed.needed("device") + counted_row
    return max(0, fitting_rows(left, free.device or 0, per_token) * per_token - counted_row)


def _follows_gradients(spec: RunSpec) -> bool:
    """Whether a search of the run differentiates the losses."""
    names = (spec.search.optimizer, *spec.search.compare)
    return any(name in OPTIMIZERS and OPTIMIZERS[name].follows_gradients for name in names)


def _differentiating_phases(spec: RunSpec) -> tuple[PlanPhase, ...]:
    """The phases in which the run differentiates losses; importance scores come just before the parents' measures."""
    scores = _IMPORTANCE if METHODS[spec.search.method].importance else ()
    return (*scores, *(PHASES[3:] if _follows_gradients(spec) else ()))


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
