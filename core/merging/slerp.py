"""SLERP: the way from one tensor to another along an arc instead of a straight line (mergekit's `slerp`).

Each tensor counts as one vector. Its angle does not depend on t, so it is found once per pool, in float64; a candidate
then is a weighted sum with two factors. mergekit finds the angle in float32 each time, which is the difference between
the two: a few units of float32's last place, more where the tensors point nearly against each other.
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
    """A merged tensor is `base` times the base's plus `expert` times the expert's."""

    base: float
    expert: float


def angle_between(base: Tensor, delta: Delta) -> float | None:
    """Angle in radians between a tensor, flattened, and itself plus `delta`.

    A tensor of no length counts as orthogonal to any other.

    Returns:
        None where |cosine| exceeds 0.9995: mergekit goes straight there, and so do we.
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
    """Factors at t (0: the base, 1: the expert) on an arc of `angle`, or on the straight line (None)."""
    if angle is None:
        return Factors(1.0 - t, t)
    return Factors(math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle))
