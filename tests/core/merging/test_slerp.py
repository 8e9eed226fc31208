"""SLERP's angle and factors, on vectors where both are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from core.merging import slerp
from core.merging.slerp import angle_between, factors
from core.merging.storage import Delta


def between(base: Tensor, delta: Tensor) -> float | None:
    return angle_between(base, Delta(delta.reshape(-1)))


def test_the_angle_is_that_of_the_flattened_tensors() -> None:
    base, other = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.5, 0.0], [0.0, 1.5 * math.sqrt(3)]])
    assert between(base, other - base) == pytest.approx(math.pi / 3, abs=1e-7)


def test_pieces_of_a_tensor_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    base, delta = torch.randn(2, 501, generator=torch.Generator().manual_seed(0))
    whole = between(base, delta)
    monkeypatch.setattr(slerp, "_PIECE", 64)
    assert between(base, delta) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(("cosine", "straight"), [(0.9994, False), (0.9996, True), (-0.9994, False), (-0.9996, True)])
def test_nearly_parallel_tensors_are_mixed_in_a_straight_line(cosine: float, straight: bool) -> None:
    base = torch.tensor([1.0, 0.0])
    other = torch.tensor([cosine, math.sqrt(1 - cosine**2)])
    assert (between(base, other - base) is None) == straight


def test_a_tensor_of_no_length_counts_as_orthogonal() -> None:
    zero, one = torch.zeros(3), torch.tensor([0.0, 2.0, 0.0])
    assert between(zero, one) == pytest.approx(math.pi / 2)
    assert between(one, -one) == pytest.approx(math.pi / 2)


@pytest.mark.parametrize("angle", [None, 0.1, 2.0])
def test_the_ends_are_exact_and_the_middle_even(angle: float | None) -> None:
    assert factors(angle, 0.0) == (1.0, 0.0)
    assert factors(angle, 1.0) == (0.0, 1.0)
    assert factors(angle, 0.5).base == pytest.approx(factors(angle, 0.5).expert)


def test_between_unit_vectors_the_length_is_kept() -> None:
    angle = 1.2
    base, other = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(angle), math.sin(angle)])
    for t in (0.2, 0.5, 0.9):
        part = factors(angle, t)
        merged = part.base * base + part.expert * other
        assert float(merged.norm()) == pytest.approx(1.0, abs=1e-6)
        assert math.atan2(float(merged[1]), float(merged[0])) == pytest.approx(t * angle, abs=1e-6)
