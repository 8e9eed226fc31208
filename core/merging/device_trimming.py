"""Exact magnitude trimming on a GPU, without synchronization; the result equals that of `core.merging.trimming`.

Two counts give a threshold. The first counts the upper 16 bits of all magnitudes, once per tensor; it gives the bin of
the k-th largest entry. The second counts the lower 16 bits of that bin's entries; it gives the threshold. Entries equal
to the threshold are counted in blocks of positions, and then within one block, to find the last one that is kept. All
results, the threshold included, stay on the device, and the CPU only launches kernels.

On a CPU `TrimIndex` is faster, because it searches the entries of one bin only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from core.merging.arithmetic import Keep
from core.merging.storage import Delta
from core.merging.trimming import MagnitudeTrim, Trim, TrimIndex

_HALF = 16
_UPPER_BINS = 1 << 15
_LOWER_BINS = 1 << 16
_MAGNITUDE_BITS = 0x7FFFFFFF
_PIECE = 1 << 22  # entries; counting needs about 40 bytes for each
_BLOCK = 1 << 12  # entries; a piece is a multiple of it


class DeviceTrim(NamedTuple):
    """Keeps every entry whose magnitude exceeds the threshold, and those equal to it at a position before `end`.

    Attributes:
        bits: () int32, the threshold's float32 bits without the sign; at least 1 unless no entry is dropped.
        end: () int64, a position in the tensor.
    """

    bits: Tensor
    end: Tensor


def count_magnitudes(delta: Delta) -> TrimIndex | DeviceTrimIndex:
    """The counts of a task vector's tensor, of the kind that suits its device."""
    return TrimIndex(delta) if delta.values.device.type == "cpu" else DeviceTrimIndex(delta)


def trimmed_by(trim: Trim | DeviceTrim) -> Keep:
    """The function that applies a trim to the consecutive pieces of its tensor."""
    return MagnitudeTrim(trim) if isinstance(trim, Trim) else DeviceMagnitudeTrim(trim)


class DeviceTrimIndex:
    """Counts of one tensor's magnitudes, from which `trim` computes the exact threshold of a density.

    Args:
        delta: the task vector's tensor; it is not stored.
    """

    def __init__(self, delta: Delta) -> None:
        counts = torch.zeros(_UPPER_BINS, dtype=torch.int64, device=delta.values.device)
        for piece in _pieces(delta):
            _count(counts, (_bits(piece) >> _HALF).long())
        self._at_least = _count_down(counts)

    @property
    def nbytes(self) -> int:
        """Memory of the counts."""
        return self._at_least.nbytes

    def trim(self, delta: Delta, density: float) -> DeviceTrim:
        """The trim that keeps `max(1, int(density * n))` entries (mergekit's `magnitude`).

        Args:
            delta: the same tensor.
            density: share of entries kept.
        """
        size, device = delta.values.numel(), delta.values.device
        if density >= 1 or size == 0:
            zero = torch.zeros((), dtype=torch.int32, device=device)
            return DeviceTrim(zero, torch.full((), size, dtype=torch.int64, device=device))
        keep = torch.full((), max(1, int(density * size)), dtype=torch.int64, device=device)
        upper, above = _bin_of(self._at_least, keep)
        lower, above_lower = _bin_of(_count_down(_count_lower(delta, upper)), keep - above)
        bits = ((upper << _HALF) | lower).int()
        end = _position_of(delta, bits, keep - above - above_lower) + 1
        # At a threshold of 0 all other entries are kept. Whether a zero is kept affects its sign only.
        return DeviceTrim(bits.clamp(min=1), torch.where(bits == 0, size, end))


def _pieces(delta: Delta) -> Iterator[Tensor]:
    return delta.pieces(_PIECE)


def _bits(values: Tensor) -> Tensor:
    """Float32 magnitudes as int32 numbers, which have the same order."""
    return values.view(torch.int32) & _MAGNITUDE_BITS


def _count(counts: Tensor, numbers: Tensor) -> None:
    """Add one to each number's count; `bincount` would synchronize to read the largest number."""
    counts.scatter_add_(0, numbers, torch.ones((), dtype=counts.dtype, device=counts.device).expand_as(numbers))


def _count_lower(delta: Delta, upper: Tensor) -> Tensor:
    """Counts of the lower 16 bits of the entries in one bin.

    All other entries are counted as well, spread over as many additional counts, because atomic additions to the same
    address wait for one another.
    """
    counts = torch.zeros(2 * _LOWER_BINS, dtype=torch.int64, device=upper.device)
    for piece in _pieces(delta):
        bits = _bits(piece)
        spread = torch.arange(piece.numel(), device=upper.device) % _LOWER_BINS + _LOWER_BINS
        _count(counts, torch.where((bits >> _HALF) == upper, bits.long() % _LOWER_BINS, spread))
    return counts[:_LOWER_BINS]


def _count_down(counts: Tensor) -> Tensor:
    """(bins + 1,) number of entries in the highest 0, 1, 2, ... bins."""
    return torch.nn.functional.pad(counts.flip(0).cumsum(0), (1, 0))


def _bin_of(at_least: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The bin of the `keep`-th largest entry, and the number of entries in higher bins, () each.

    Args:
        at_least: result of `_count_down`.
        keep: () at least 1.
    """
    bins = at_least.numel() - 1
    higher = (at_least[1:] < keep).sum()
    return bins - 1 - higher, at_least.index_select(0, higher.reshape(1)).reshape(())


def _position_of(delta: Delta, bits: Tensor, number: Tensor) -> Tensor:
    """() position of the `number`-th entry (from 1) with the magnitude `bits`."""
    counts = torch.cat([_count_blocks(_bits(piece) == bits) for piece in _pieces(delta)])
    before = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    block = (before[1:] < number).sum()
    positions = block * _BLOCK + torch.arange(_BLOCK, device=bits.device)
    inside = positions.clamp(max=delta.values.numel() - 1)
    part = Delta(delta.values[inside], None if delta.base is None else delta.base[inside])
    equal = (_bits(part.whole) == bits) & (positions == inside)
    left = number - before.index_select(0, block.reshape(1)).reshape(())
    return block * _BLOCK + (equal.cumsum(0) < left).sum()


def _count_blocks(matches: Tensor) -> Tensor:
    """The number of True entries in each block of positions."""
    padding = -matches.numel() % _BLOCK
    return torch.nn.functional.pad(matches, (0, padding)).view(-1, _BLOCK).sum(1)


class DeviceMagnitudeTrim:
    """TIES's mask of one tensor of a task vector, applied to its consecutive pieces.

    Args:
        trim: the tensor's.
    """

    def __init__(self, trim: DeviceTrim) -> None:
        self.trim = trim
        self._start = 0

    def __call__(self, values: Tensor) -> Tensor:
        """The next piece (1-D) with the trimmed entries zeroed."""
        start, self._start = self._start, self._start + values.numel()
        after = torch.arange(start, self._start, device=values.device) >= self.trim.end
        return torch.where(_bits(values) >= self.trim.bits + after.int(), values, values.new_zeros(()))


@dataclass(frozen=True)
class RescaledTrim:
    """TIES's mask of one tensor, whose kept entries are multiplied by a factor (mergekit's `rescale`).

    Attributes:
        keep: the mask.
        factor: () float64.
    """

    keep: Keep
    factor: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """The next piece (1-D), trimmed and multiplied."""
        return self.keep(values) * self.factor
