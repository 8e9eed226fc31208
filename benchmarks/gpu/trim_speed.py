"""Time to trim one tensor at a new density: by the CPU's algorithm, and by the one without synchronization."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gpu.sections import Check, Figures
from core.merging.arithmetic import piece_entries
from core.merging.device_trimming import DeviceTrimIndex, trimmed_by
from core.merging.storage import Delta
from core.merging.trimming import TrimIndex

_ENTRIES = 4096 * 14336
_TINY_ENTRIES = (1 << 20) + 5
_DENSITIES = (0.17, 0.36, 0.55)
_LAST = 0.74


def measure_trimming(check: Check, figures: Figures) -> None:
    """Time both algorithms on one task vector in bfloat16, and compare their results."""
    size = _ENTRIES if check.on_gpu and not check.tiny else _TINY_ENTRIES
    base = torch.randn(size, device=check.device).bfloat16()
    delta = Delta(base + 0.01 * torch.randn(size, device=check.device).bfloat16(), base)
    kept: dict[str, Tensor] = {}
    for name, kind in (("synchronizing", TrimIndex), ("on_device", DeviceTrimIndex)):
        made: list[TrimIndex | DeviceTrimIndex] = []
        count_s = check.seconds(lambda kind=kind, made=made: made.append(kind(delta)))
        index = made[0]
        index.trim(delta, 0.5)
        spent = [check.seconds(index.trim, delta, density) for density in _DENSITIES]
        trim = index.trim(delta, _LAST)
        apply_s = check.seconds(lambda trim=trim: _trimmed(delta, trim), rounds=3)
        figures[name] = {"count_s": count_s, "trim_s": min(spent), "apply_s": apply_s}
        kept[name] = _trimmed(delta, trim)
    figures["entries"] = size
    figures["same_values"] = torch.equal(kept["synchronizing"], kept["on_device"])
    ratio = figures["on_device"]["trim_s"] / figures["synchronizing"]["trim_s"]
    figures["on_device_over_synchronizing"] = ratio


def _trimmed(delta: Delta, trim: object) -> Tensor:
    keep = trimmed_by(trim)  # type: ignore[arg-type]
    return torch.cat([keep(piece) for piece in delta.pieces(piece_entries(delta.values.device.type))])
