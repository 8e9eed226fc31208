"""SLERP: interpolation from one tensor to another along an arc instead of a straight line (mergekit's `slerp`).

Each tensor is one vector. The angle does not depend on t, so it is computed once per pool, in float64; a candidate is
then a weighted sum with two factors. mergekit computes the angle in float32 each time, so results differ by a few units
of float32's last place, and by more where the tensors point in nearly opposite directions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from core.merging.storage import Delta

_STRAIGHT = 0.9995
_NO_LENGTH = 1e-8
_PIECE = 1 << 20


class Factors(NamedTuple):
    """Factors of the base's and the expert's tensor in the merged tensor."""

    base: float
    expert: float


class Arc(NamedTuple):
    """What SLERP merges a tensor from; the angle is None where it interpolates linearly."""

    base: Tensor
    delta: Delta
    angle: float | None


def angle_between(base: Tensor, delta: Delta) -> float | None:
    """Angle in radians between a tensor, flattened, and itself plus `delta`.

    A tensor of length zero counts as orthogonal to any other.

    Returns:
        None where |cosine| exceeds 0.9995: there the interpolation is linear, as in mergekit.
    """
    dot = length_base = length_other = 0.0
    for one, change in zip(torch.split(base.reshape(-1), _PIECE), delta.pieces(_PIECE), strict=True):
        x = one.double()
        y = (one.float() + change).double()
        dot += float(x @ y)
        length_base += float(x @ x)
        length_other += float(y @ y)
    cosine = dot / (_length(length_base) * _length(length_other))
    return None if abs(cosine) > _STRAIGHT else math.acos(cosine)


def _length(square: float) -> float:
    length = math.sqrt(square)
    return length if length > _NO_LENGTH else 1.0


def factors(angle: float | None, t: float) -> Factors:
    """Factors at t (0: the base, 1: the expert) on an arc of `angle`, or on a straight line (None)."""
    if angle is None:
        return Factors(1.0 - t, t)
    return Factors(math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle))
