"""Exact trimming: the same entries as a full sort keeps, for any density."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.merging import trimming
from core.merging.storage import Delta
from core.merging.trimming import MagnitudeTrim, Trim, TrimIndex


def cut(values: Tensor, density: float) -> Trim:
    delta = Delta(values.reshape(-1))
    return TrimIndex(delta).trim(delta, density)


def kept(delta: Tensor, density: float) -> Tensor:
    """Which entries survive, by what a cut says."""
    threshold, end = cut(delta, density)
    equal = (delta.abs() == threshold) & (torch.arange(delta.numel()) < end)
    return (delta.abs() > threshold) | equal


def random_tensor(size: int, seed: int, kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(size, generator=generator) * 10.0 ** torch.randint(-6, 3, (1,), generator=generator)
    if kind == "float32":
        return values
    if kind == "bfloat16":  # few distinct magnitudes: many are equal
        return values.bfloat16().float()
    return values * (torch.rand(size, generator=generator) < 0.3)  # mostly zeros


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    size=st.integers(1, 600),
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["float32", "bfloat16", "zeros"]),
    density=st.one_of(st.floats(1e-6, 1.0), st.sampled_from([1e-6, 0.05, 0.5, 0.999999, 1.0])),
)
def test_the_k_largest_entries_are_kept(size: int, seed: int, kind: str, density: float) -> None:
    delta = random_tensor(size, seed, kind)
    mask = kept(delta, density)
    k = max(1, int(density * size))
    assert int(mask.sum()) == k
    largest = torch.topk(delta.abs(), k).values
    assert torch.equal(delta.abs()[mask].sort(descending=True).values, largest)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    size=st.integers(1, 300),
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["float32", "bfloat16", "zeros"]),
    density=st.floats(0.01, 1.0),
    piece=st.sampled_from([1, 7, 64]),
)
def test_trimmed_pieces_are_the_entries_kept(size: int, seed: int, kind: str, density: float, piece: int) -> None:
    values = random_tensor(size, seed, kind)
    trimmed = MagnitudeTrim(cut(values, density))
    parts = torch.cat([trimmed(part) for part in values.split(piece)])
    assert torch.equal(parts, values * kept(values, density))


def test_among_equal_magnitudes_the_first_are_kept() -> None:
    delta = torch.tensor([0.5, -1.0, 0.5, -0.5, 0.25, 0.5])
    assert kept(delta, 0.5).tolist() == [True, True, True, False, False, False]
    trimmed = MagnitudeTrim(cut(delta, 0.5))
    assert [trimmed(part).tolist() for part in delta.split(2)] == [[0.5, -1.0], [0.5, 0.0], [0.0, 0.0]]


def test_density_one_keeps_everything_and_costs_no_threshold() -> None:
    assert cut(torch.tensor([0.0, 1.0]), 1.0) == Trim(-1.0, 0)


def test_an_all_zero_tensor_can_be_trimmed() -> None:
    assert int(kept(torch.zeros(10), 0.3).sum()) == 3


def test_counts_of_several_chunks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    delta = random_tensor(500, 3, "bfloat16")
    whole = cut(delta, 0.37)
    monkeypatch.setattr(trimming, "_CHUNK", 64)
    assert cut(delta, 0.37) == whole


def test_magnitudes_that_differ_only_in_the_last_bit_are_distinguished() -> None:
    one = torch.tensor([1.0])
    delta = torch.cat([one, torch.nextafter(one, one + 1), -torch.nextafter(one, one - 1), one / 2])
    assert kept(delta, 0.25).tolist() == [False, True, False, False]
    assert kept(delta, 0.5).tolist() == [True, True, False, False]
