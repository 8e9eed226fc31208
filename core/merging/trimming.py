"""Exact magnitude trimming of a task vector for any density, without sorting it again.

TIES keeps the k largest entries of each tensor. The upper 16 bits of a float32 magnitude have 32,768 values. They are
counted once per tensor; the counts give the bin of the k-th largest entry, and only that bin's few entries are
searched. Entries equal to the threshold are kept in the tensor's order until k are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from core.merging.storage import Delta

_BINS = 1 << 15
_BIN_MASK = 0x7FFF0000  # of a float32's bits
_CHUNK = 1 << 19  # entries that fit the processor's cache


class Trim(NamedTuple):
    """Keeps every entry whose magnitude exceeds `threshold`, and those equal to it at a position before `end`."""

    threshold: float
    end: int


class TrimIndex:
    """Counts of one tensor's magnitudes, from which `trim` computes the exact threshold of a density.

    Only bins with entries are stored, 8 bytes each: at most as many as the tensor has entries.

    Args:
        delta: the task vector's tensor; it is not stored.
    """

    def __init__(self, delta: Delta) -> None:
        counts = torch.zeros(_BINS, dtype=torch.int64, device=delta.values.device)
        for chunk in delta.pieces(_CHUNK):
            counts += torch.bincount(_bins(chunk), minlength=_BINS)
        largest_first = counts.nonzero().reshape(-1).flip(0)
        self._numbers = largest_first.to(torch.int32)
        wide = delta.values.numel() >= 1 << 31
        self._at_least = counts[largest_first].cumsum(0, dtype=torch.int64 if wide else torch.int32)

    @property
    def nbytes(self) -> int:
        """Memory of the counts."""
        return self._numbers.nbytes + self._at_least.nbytes

    def trim(self, delta: Delta, density: float) -> Trim:
        """The trim that keeps `max(1, int(density * n))` entries (mergekit's `magnitude`).

        Args:
            delta: the same tensor.
            density: share of entries kept.
        """
        size = delta.values.numel()
        if density >= 1 or size == 0:
            return Trim(-1.0, 0)
        keep = max(1, int(density * size))
        place = int(torch.searchsorted(self._at_least, self._at_least.new_tensor(keep)))
        above = int(self._at_least[place - 1]) if place else 0
        inside, places = _entries_of(delta, int(self._numbers[place]))
        from_bin = keep - above
        threshold = inside.kthvalue(inside.numel() - from_bin + 1).values
        ties = places[inside == threshold]
        kept = from_bin - int((inside > threshold).sum())
        return Trim(float(threshold), size if kept == ties.numel() else int(ties[kept - 1]) + 1)


def _entries_of(delta: Delta, number: int) -> tuple[Tensor, Tensor]:
    """Magnitudes in bin `number`, and their positions in the tensor, in order."""
    magnitudes, places, start = [], [], 0
    for chunk in delta.pieces(_CHUNK):
        here = ((chunk.view(torch.int32) & _BIN_MASK) == number << 16).nonzero().reshape(-1)
        magnitudes.append(chunk[here].abs())
        places.append(here + start)
        start += chunk.numel()
    return torch.cat(magnitudes), torch.cat(places)


class MagnitudeTrim:
    """TIES's mask of one tensor of a task vector, applied to its consecutive pieces.

    Args:
        trim: the tensor's.
    """

    def __init__(self, trim: Trim) -> None:
        self._trim = trim
        self._below = _next_below(trim.threshold)
        self._start = 0

    def __call__(self, values: Tensor) -> Tensor:
        """The next piece (1-D) with the trimmed entries zeroed."""
        until = self._trim.end - self._start
        self._start += values.numel()
        if until >= values.numel():  # all entries equal to the threshold stay: cut just below it
            return hardshrink(values, self._below)
        if until <= 0 or self._trim.threshold == 0:  # entries equal to a threshold of 0 are 0 already
            return hardshrink(values, self._trim.threshold)
        return torch.cat([hardshrink(values[:until], self._below), hardshrink(values[until:], self._trim.threshold)])


def _next_below(magnitude: float) -> float:
    """The next float32 towards 0."""
    value = torch.tensor(magnitude, dtype=torch.float32)
    return float(torch.nextafter(value, torch.zeros_like(value)))


def _bins(values: Tensor) -> Tensor:
    """Upper 16 bits of each float32 magnitude, as int32 in [0, 32768)."""
    return (values.view(torch.int32) >> 16) & 0x7FFF
