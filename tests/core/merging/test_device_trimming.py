"""Trimming on the device keeps the same entries as on the CPU, and never synchronizes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.merging import arithmetic, device_trimming, engine
from core.merging.device_trimming import DeviceMagnitudeTrim, DeviceTrimIndex
from core.merging.recipes import Recipe
from core.merging.storage import Delta
from core.merging.trimming import MagnitudeTrim, TrimIndex
from tests.core.merging.no_sync import NoSync
from tests.core.merging.small_pools import Small, fine_tune, pool_of, state_of
from tests.core.merging.test_trimming import random_tensor


@pytest.fixture(autouse=True)
def small_pieces() -> Iterator[None]:
    """Make blocks and pieces so small that a test's tensor has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_trimming, "_BLOCK", 16)
        patch.setattr(device_trimming, "_PIECE", 64)
        patch.setattr(arithmetic, "_PIECE", 48)
        yield


def both(delta: Delta, density: float, piece: int) -> tuple[Tensor, Tensor]:
    """The trimmed tensor, by the CPU's algorithm and by the device's."""
    results = []
    for index, keeper in ((TrimIndex, MagnitudeTrim), (DeviceTrimIndex, DeviceMagnitudeTrim)):
        keep = keeper(index(delta).trim(delta, density))  # type: ignore[arg-type]
        results.append(torch.cat([keep(part) for part in delta.pieces(piece)]))
    return results[0], results[1]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    size=st.integers(1, 600),
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["float32", "bfloat16", "zeros", "few"]),
    density=st.one_of(st.floats(1e-6, 0.999), st.sampled_from([1e-6, 0.05, 0.5, 0.999999])),
    piece=st.sampled_from([7, 64, 1000]),
)
def test_the_same_entries_are_kept(size: int, seed: int, kind: str, density: float, piece: int) -> None:
    values = random_tensor(size, seed, kind) if kind != "few" else random_tensor(size, seed, "bfloat16").sign() * 0.25
    expected, actual = both(Delta(values), density, piece)
    assert torch.equal(expected.view(torch.int32), actual.view(torch.int32))  # to the bit: the signs of zeros count


@settings(derandomize=True, deadline=None, max_examples=60)
@given(size=st.integers(1, 400), seed=st.integers(0, 1000), density=st.floats(0.01, 0.99))
def test_compact_task_vectors_keep_the_same_entries(size: int, seed: int, density: float) -> None:
    own, base = (random_tensor(size, seed + part, "float32").bfloat16() for part in range(2))
    expected, actual = both(Delta(own, base), density, 64)
    assert torch.equal(expected, actual)


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("parameters", [{}, {"rescale": True}, {"normalize": True}])
def test_a_merge_never_synchronizes(experts: int, parameters: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    base = state_of(Small(0))
    states = {name: fine_tune(base, seed) for seed, name in enumerate("ab"[:experts])}
    recipe = Recipe(
        method="ties",
        base="base",
        experts=tuple(states),
        weights=(0.7,) * experts,
        densities=(0.3,) * experts,
        parameters=parameters,
    )
    on_cpu = pool_of(states)
    on_cpu.apply(recipe)
    monkeypatch.setattr(engine, "count_magnitudes", DeviceTrimIndex)
    pool = pool_of(states)
    with NoSync():
        pool.apply(recipe)
    for name, tensor in on_cpu.live.state_dict().items():
        assert torch.equal(tensor, pool.live.state_dict()[name]), name
    assert pool.stored_bytes["trim indices"] > 0


def test_synchronization_is_detected() -> None:
    delta = Delta(random_tensor(100, 0, "float32"))
    with pytest.raises(AssertionError), NoSync():
        TrimIndex(delta).trim(delta, 0.5)


def test_large_tensors_of_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_trimming, "_BLOCK", 1 << 12)
    monkeypatch.setattr(device_trimming, "_PIECE", 1 << 19)
    values = torch.randn(1_300_001, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    for density in (0.001, 0.37, 0.9):
        expected, actual = both(Delta(values), density, 1 << 19)
        assert torch.equal(expected, actual)
