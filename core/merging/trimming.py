"""Exact magnitude trimming of a task vector for any density, without sorting it again.

TIES keeps the k largest entries of each tensor. A float32 magnitude's upper 16 bits have 32,768 values, so one count of
them per tensor, made once, leads to the bin that holds the k-th largest entry; only that bin's few entries are then
searched. Entries equal to the threshold are kept in order of their place until k are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.merging.storage import Delta

_BINS = 1 << 15
_CHUNK = 1 << 19  # fits the processor's cache


class Trim(NamedTuple):
    """Keep every entry whose magnitude exceeds `threshold`, and the first `ties` of those equal to it."""

    threshold: float
    ties: int


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
        inside = _entries_of(delta, int(self._numbers[place]))
        wanted = keep - above
        threshold = inside.kthvalue(inside.numel() - wanted + 1).values
        ties = wanted - int((inside > threshold).sum())
        all_kept = ties == int((inside == threshold).sum())
        if all_kept and float(threshold) > 0:
            return Trim(_next_below(float(threshold)), 0)  # no tie is left to count
        return Trim(float(threshold), ties)


def _entries_of(delta: Delta, number: int) -> Tensor:
    """Magnitudes in bin `number`."""
    return torch.cat([chunk[_bins(chunk) == number].abs() for chunk in delta.pieces(_CHUNK)])


class MagnitudeTrim:
    """TIES's mask of one tensor of a task vector, applied to its consecutive pieces.

    Args:
        trim: the tensor's cut.
    """

    def __init__(self, trim: Trim) -> None:
        self._trim = trim
        self._ties_used = 0
        self._below = _next_below(trim.threshold)

    def __call__(self, values: Tensor) -> Tensor:
        """The next piece (1-D) with the entries zeroed that do not survive."""
        if self._trim.threshold == 0 or self._ties_used >= self._trim.ties:  # equal to a threshold of 0 is 0 already
            return torch.nn.functional.hardshrink(values, self._trim.threshold)
        equal = int((values.abs() == self._trim.threshold).sum())
        if self._ties_used + equal <= self._trim.ties:  # all of them stay: shrink to just below the threshold
            self._ties_used += equal
            return torch.nn.functional.hardshrink(values, self._below)
        mask, self._ties_used = keep_mask(values.abs(), self._trim, self._ties_used)
        return values * mask


def _next_below(magnitude: float) -> float:
    """The next smaller float32."""
    value = torch.tensor(magnitude, dtype=torch.float32)
    return float(torch.nextafter(value, torch.zeros_like(value)))


def _bins(values: Tensor) -> Tensor:
    """Upper 16 bits of each float32 magnitude, as int32 in [0, 32768)."""
    return (values.view(torch.int32) >> 16) & 0x7FFF


def keep_mask(magnitudes: Tensor, trim: Trim, ties_used: int) -> tuple[Tensor, int]:
    """Which entries of a piece of a tensor survive `trim`.

    Args:
        magnitudes: |delta| of the piece, 1-D.
        trim: the tensor's cut.
        ties_used: entries equal to the threshold already kept in earlier pieces.

    Returns:
        (boolean mask, updated `ties_used`).
    """
    if trim.threshold < 0:
        return torch.ones_like(magnitudes, dtype=torch.bool), 0
    mask = magnitudes > trim.threshold
    if ties_used >= trim.ties:
        return mask, ties_used
    equal = magnitudes == trim.threshold
    count = int(equal.sum())
    if ties_used + count > trim.ties:
        equal &= equal.cumsum(0) <= trim.ties - ties_used
        count = trim.ties - ties_used
    return mask | equal, ties_used + count
