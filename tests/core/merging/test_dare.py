"""DARE's masks: fixed by (seed, expert, tensor), nested in the density, the same however a tensor is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.merging.dare import RandomDrop


def mask(density: float, size: int = 100_000, seed: int = 0, expert: str = "a", tensor: str = "w") -> Tensor:
    return RandomDrop(seed, expert, tensor, density)(torch.ones(size)) == 1


def test_the_masks_of_a_recipe_never_change() -> None:
    # Written down, as saved recipes mean these masks.
    assert mask(0.5, 16).int().tolist() == [1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("density", [0.1, 0.5, 0.93])
def test_the_share_kept_is_the_density(density: float) -> None:
    five_sigma = 5 * (density * (1 - density) / 100_000) ** 0.5
    assert float(mask(density).float().mean()) == pytest.approx(density, abs=five_sigma)


def test_seed_expert_and_tensor_each_give_masks_that_know_nothing_of_each_other() -> None:
    one = mask(0.5)
    for other in (mask(0.5, seed=1), mask(0.5, expert="b"), mask(0.5, tensor="v")):
        assert float((one == other).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.equal(one, mask(0.5))


def test_names_are_not_run_together() -> None:
    assert not torch.equal(mask(0.5, expert="ab", tensor="c"), mask(0.5, expert="a", tensor="bc"))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(low=st.floats(1e-6, 1.0), high=st.floats(1e-6, 1.0), size=st.integers(1, 500))
def test_a_larger_density_keeps_all_that_a_smaller_one_kept(low: float, high: float, size: int) -> None:
    low, high = sorted((low, high))
    assert not bool((mask(low, size) & ~mask(high, size)).any())


@settings(derandomize=True, deadline=None, max_examples=60)
@given(size=st.integers(1, 500), piece=st.integers(1, 40), density=st.floats(0.01, 1.0))
def test_pieces_make_up_the_whole(size: int, piece: int, density: float) -> None:
    values = torch.arange(1.0, size + 1)
    drop = RandomDrop(3, "a", "w", density)
    pieces = torch.cat([drop(part) for part in values.split(4 * piece)])
    assert torch.equal(pieces, RandomDrop(3, "a", "w", density)(values))


def test_neighbours_are_dropped_independently() -> None:
    kept = mask(0.5).float()
    for distance in (1, 2, 3, 4):
        both = float((kept[:-distance] * kept[distance:]).mean())
        assert both == pytest.approx(0.25, abs=0.01)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    mask(0.5)
    assert torch.equal(torch.get_rng_state(), before)
