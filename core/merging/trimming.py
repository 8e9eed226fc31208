"""Exact magnitude trimming of a task vector for any density, without sorting it again.

TIES keeps the k largest entries of each tensor. A float32 magnitude's upper 16 bits have 32,768 values, so one count of
them per tensor, made once, leads to the bin that holds the k-th largest entry; only that bin's few entries are then
searched. Entries equal to the threshold are kept in order of their place until k are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from core.merging.storage import Delta

_BINS = 1 << 15
_BIN_MASK = 0x7FFF0000  # of a float32's bits
_CHUNK = 1 << 19  # fits the processor's cache


class Trim(NamedTuple):
    """Keep every entry whose magnitude exceeds `threshold`, and those equal to it that stand before place `end`."""

    threshold: float
    end: int


class TrimIndex:
    """Counts of one tensor's magnitudes, from which `trim` reads the exact threshold of a density.

    Only the bins that hold anything are kept: 8 bytes for each, at most for as many as the tensor has entries.

    Args:
        delta: the task vector's tensor; not kept.
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
        """Memory that the counts take."""
        return self._numbers.nbytes + self._at_least.nbytes

    def trim(self, delta: Delta, density: float) -> Trim:
        """The cut for keeping `max(1, int(density * n))` entries (mergekit's `magnitude`).

        Args:
            delta: the tensor that was counted.
            density: share of entries kept.
        """
        size = delta.values.numel()
        if density >= 1 or size == 0:
            return Trim(-1.0, 0)
        keep = max(1, int(density * size))
        place = int(torch.searchsorted(self._at_least, self._at_least.new_tensor(keep)))
        above = int(self._at_least[place - 1]) if place else 0
        inside, places = _entries_of(delta, int(self._numbers[place]))
        wanted = keep - above
        threshold = inside.kthvalue(inside.numel() - wanted + 1).values
        ties = places[inside == threshold]
        kept = wanted - int((inside > threshold).sum())
        return Trim(float(threshold), size if kept == ties.numel() else int(ties[kept - 1]) + 1)


def _entries_of(delta: Delta, number: int) -> tuple[Tensor, Tensor]:
    """Magnitudes in bin `number`, and their places in the tensor, in order."""
    found, places, start = [], [], 0
    for chunk in delta.pieces(_CHUNK):
        here = ((chunk.view(torch.int32) & _BIN_MASK) == number << 16).nonzero().reshape(-1)
        found.append(chunk[here].abs())
        places.append(here + start)
        start += chunk.numel()
    return torch.cat(found), torch.cat(places)


class MagnitudeTrim:
    """TIES's mask of one tensor of a task vector, applied to its consecutive pieces.

    Args:
        trim: the tensor's cut.
    """

    def __init__(self, trim: Trim) -> None:
        self._trim = trim
        self._below = _next_below(trim.threshold)
        self._start = 0

    def __call__(self, values: Tensor) -> Tensor:
        """The next piece (1-D) with the entries zeroed that do not survive."""
        until = self._trim.end - self._start
        self._start += values.numel()
        if until >= values.numel():  # all that equal the threshold stay: shrink to just below it
            return hardshrink(values, self._below)
        if until <= 0 or self._trim.threshold == 0:  # what equals a threshold of 0 is 0 already
            return hardshrink(values, self._trim.threshold)
        return torch.cat([hardshrink(values[:until], self._below), hardshrink(values[until:], self._trim.threshold)])


def _next_below(magnitude: float) -> float:
    """The next float32 towards 0."""
    value = torch.tensor(magnitude, dtype=torch.float32)
    return float(torch.nextafter(value, torch.zeros_like(value)))


def _bins(values: Tensor) -> Tensor:
    """Upper 16 bits of each float32 magnitude, as int32 in [0, 32768)."""
    return (values.view(torch.int32) >> 16) & 0x7FFF
