"""Exact magnitude trimming that never waits for the device: `core.merging.trimming` for GPUs, with the same result.

A threshold is found by two counts. The first one, of the upper 16 bits of all magnitudes, is made once per tensor and
names the bin that holds the k-th largest entry. The second one, of the lower 16 bits of that bin's entries, names the
threshold itself. Entries equal to it are counted by blocks of places, and within one block, to find the last one kept.
All of it, the threshold included, stays on the device: the processor only launches the work.

On a processor `TrimIndex` is faster, as it looks at the entries of one bin only, and nothing has to be waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
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
_PIECE = 1 << 22  # counting takes about 40 bytes an entry of a piece
_BLOCK = 1 << 12  # a piece is a multiple of it


class DeviceTrim(NamedTuple):
    """Keep every entry with larger magnitude bits than `bits`, and those with equal ones that stand before place `end`.

    Attributes:
        bits: () int32, the threshold's float32 bits without the sign; at least 1 unless nothing is dropped.
        end: () int64.
    """

    bits: Tensor
    end: Tensor


def count_magnitudes(delta: Delta) -> TrimIndex | DeviceTrimIndex:
    """The index that trims a task vector's tensor, by the device it is on."""
    return TrimIndex(delta) if delta.values.device.type == "cpu" else DeviceTrimIndex(delta)


def trimmed_by(trim: Trim | DeviceTrim) -> Keep:
    """What applies a cut to the consecutive pieces of its tensor."""
    return MagnitudeTrim(trim) if isinstance(trim, Trim) else DeviceMagnitudeTrim(trim)


class DeviceTrimIndex:
    """Counts of one tensor's magnitudes, from which `trim` reads the exact threshold of a density.

    Args:
        delta: the task vector's tensor; not kept.
    """

    def __init__(self, delta: Delta) -> None:
        counts = torch.zeros(_UPPER_BINS, dtype=torch.int64, device=delta.values.device)
        for piece in _pieces(delta):
            _count(counts, (_bits(piece) >> _HALF).long())
        self._at_least = _count_down(counts)

    @property
    def nbytes(self) -> int:
        """Memory that the counts take."""
        return self._at_least.nbytes

    def trim(self, delta: Delta, density: float) -> DeviceTrim:
        """The cut for keeping `max(1, int(density * n))` entries (mergekit's `magnitude`).

        Args:
            delta: the tensor that was counted.
            density: share of entries kept.
        """
        size, device = delta.values.numel(), delta.values.device
        if density >= 1 or size == 0:
            nothing = torch.zeros((), dtype=torch.int32, device=device)
            return DeviceTrim(nothing, torch.full((), size, dtype=torch.int64, device=device))
        keep = torch.full((), max(1, int(density * size)), dtype=torch.int64, device=device)
        upper, above = _bin_of(self._at_least, keep)
        lower, above_lower = _bin_of(_count_down(_count_lower(delta, upper)), keep - above)
        bits = ((upper << _HALF) | lower).int()
        end = _place_of(delta, bits, keep - above - above_lower) + 1
        # At a threshold of 0 all other entries stay; whether a zero is kept makes no difference but to its sign.
        return DeviceTrim(bits.clamp(min=1), torch.where(bits == 0, size, end))


def _pieces(delta: Delta) -> Iterator[Tensor]:
    return delta.pieces(_PIECE)


def _bits(values: Tensor) -> Tensor:
    """Float32 magnitudes as int32, which has the same order."""
    return values.view(torch.int32) & _MAGNITUDE_BITS


def _count(counts: Tensor, numbers: Tensor) -> None:
    """Add one to each number's count; `bincount` would wait for the largest number."""
    counts.scatter_add_(0, numbers, torch.ones((), dtype=counts.dtype, device=counts.device).expand_as(numbers))


def _count_lower(delta: Delta, upper: Tensor) -> Tensor:
    """Counts of the lower 16 bits of the entries in one bin.

    All other entries are counted as well, at places that spread over as many other counts: an atomic addition waits for
    others to the same address.
    """
    counts = torch.zeros(2 * _LOWER_BINS, dtype=torch.int64, device=upper.device)
    for piece in _pieces(delta):
        bits = _bits(piece)
        spread = torch.arange(piece.numel(), device=upper.device) % _LOWER_BINS + _LOWER_BINS
        _count(counts, torch.where((bits >> _HALF) == upper, bits.long() % _LOWER_BINS, spread))
    return counts[:_LOWER_BINS]


def _count_down(counts: Tensor) -> Tensor:
    """(bins + 1,) for each number of bins the entries in that many of the highest ones."""
    return torch.nn.functional.pad(counts.flip(0).cumsum(0), (1, 0))


def _bin_of(at_least: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """() number of the bin that holds the entry in place `keep` from the top, and () how many entries are above it.

    Args:
        at_least: as `_count_down` gives it.
        keep: () at least 1.
    """
    bins = at_least.numel() - 1
    higher = (at_least[1:] < keep).sum()
    return bins - 1 - higher, at_least.index_select(0, higher.reshape(1)).reshape(())


def _place_of(delta: Delta, bits: Tensor, number: Tensor) -> Tensor:
    """() place of the entry that is number `number` (from 1) of those with the magnitude `bits`."""
    counts = torch.cat([_count_blocks(_bits(piece) == bits) for piece in _pieces(delta)])
    before = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    block = (before[1:] < number).sum()
    places = block * _BLOCK + torch.arange(_BLOCK, device=bits.device)
    inside = places.clamp(max=delta.values.numel() - 1)
    some = Delta(delta.values[inside], None if delta.base is None else delta.base[inside])
    equal = (_bits(some.whole) == bits) & (places == inside)
    left = number - before.index_select(0, block.reshape(1)).reshape(())
    return block * _BLOCK + (equal.cumsum(0) < left).sum()


def _count_blocks(found: Tensor) -> Tensor:
    """How many entries are True in each block of places."""
    padding = -found.numel() % _BLOCK
    return torch.nn.functional.pad(found, (0, padding)).view(-1, _BLOCK).sum(1)


class DeviceMagnitudeTrim:
    """TIES's mask of one tensor of a task vector, applied to its consecutive pieces.

    Args:
        trim: the tensor's cut.
    """

    def __init__(self, trim: DeviceTrim) -> None:
        self._trim = trim
        self._start = 0

    def __call__(self, values: Tensor) -> Tensor:
        """The next piece (1-D) with the entries zeroed that do not survive."""
        start, self._start = self._start, self._start + values.numel()
        after = torch.arange(start, self._start, device=values.device) >= self._trim.end
        return torch.where(_bits(values) >= self._trim.bits + after.int(), values, values.new_zeros(()))
