"""Version 2 of DARE's masks: they depend on the position alone, are uniform and independent, and nest by density."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from core.merging import counter_masks
from core.merging.counter_masks import LEVELS, CounterDrop, numbers_at
from core.merging.dare import RandomDrop, random_drop
from core.merging.engine import MergePool
from core.merging.recipes import LATEST_MASK_VERSION, Recipe
from core.search.genome import Genome
from tests.core.merging.no_sync import NoSync
from tests.core.merging.small_pools import Small, fine_tune, state_of

CPU = torch.device("cpu")
BLOCK = 1 << 19
MANY = 1 << 21
SIGMAS = 5.0


def stream(seed: int = 0, expert: str = "a", tensor: str = "w") -> str:
    return f"{seed}\0{expert}\0{tensor}\0"


def mask(density: float, size: int = 100_000, seed: int = 0, expert: str = "a", tensor: str = "w") -> Tensor:
    return CounterDrop(seed, expert, tensor, density)(torch.ones(size)) == 1


def uniform(name: str, size: int = MANY, start: int = 0) -> Tensor:
    """Numbers with mean 0 and variance 1."""
    numbers = numbers_at(name, start, size, CPU).double() + 0.5
    return numbers / LEVELS * 12**0.5


def correlation(one: Tensor, other: Tensor) -> float:
    """The correlation of two sequences of variance 1, in standard deviations of independent sequences."""
    return float((one * other).mean()) * one.numel() ** 0.5


def test_the_numbers_of_a_recipe_never_change() -> None:
    # Saved recipes of version 2 need these numbers: at a tensor's start, across a block's end, and at a later position.
    expected = {
        0: [10461, -13297, 24738, 3993, 12073, 12877, -1089, 10729],
        BLOCK - 4: [-26120, -20983, -12627, -30642, 31468, 26924, 28186, 31512],
        3 * BLOCK + 12345: [-29165, -9743, 13422, 29798, 30261, -2705, 17092, 5153],
    }
    for start, numbers in expected.items():
        assert numbers_at(stream(), start, 8, CPU).tolist() == numbers
    assert mask(0.5, 8).int().tolist() == [0, 1, 0, 0, 0, 0, 1, 0]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(start=st.integers(0, 5000), size=st.integers(1, 700), words=st.sampled_from([1 << 3, 1 << 5, 1 << 18]))
def test_numbers_depend_on_the_position_alone(start: int, size: int, words: int) -> None:
    with pytest.MonkeyPatch.context() as patch:  # small blocks, so that a piece holds several
        patch.setattr(counter_masks, "BLOCK_WORDS", words)
        patch.setattr(counter_masks, "_table", counter_masks._table.__wrapped__)
        whole = numbers_at(stream(), 0, start + size, CPU)
        assert torch.equal(numbers_at(stream(), start, size, CPU), whole[start:])


@settings(derandomize=True, deadline=None, max_examples=40)
@given(size=st.integers(1, 500), piece=st.integers(1, 70), density=st.floats(0.01, 1.0))
def test_pieces_of_any_size_give_the_same_mask(size: int, piece: int, density: float) -> None:
    values = torch.arange(1.0, size + 1)
    drop = CounterDrop(3, "a", "w", density)
    pieces = torch.cat([drop(part) for part in values.split(piece)])
    assert torch.equal(pieces, CounterDrop(3, "a", "w", density)(values))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(low=st.floats(1e-6, 1.0), high=st.floats(1e-6, 1.0), size=st.integers(1, 500))
def test_a_larger_density_keeps_every_entry_that_a_smaller_one_keeps(low: float, high: float, size: int) -> None:
    low, high = sorted((low, high))
    assert not bool((mask(low, size) & ~mask(high, size)).any())
    assert bool(mask(1.0, size).all())


@pytest.mark.parametrize("density", [0.1, 0.5, 0.93])
def test_the_share_kept_is_the_density(density: float) -> None:
    limit = SIGMAS * (density * (1 - density) / 100_000) ** 0.5
    assert float(mask(density).float().mean()) == pytest.approx(density, abs=limit)


def test_numbers_are_uniform() -> None:
    counts = torch.bincount(numbers_at(stream(), 0, MANY, CPU).long() + LEVELS // 2, minlength=LEVELS).double()
    expected = MANY / LEVELS
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    freedom = LEVELS - 1
    assert abs(chi_squared - freedom) < SIGMAS * (2 * freedom) ** 0.5


@pytest.mark.parametrize("group", [2, 4])
def test_neighbors_are_jointly_uniform(group: int) -> None:
    high = (numbers_at(stream(), 0, MANY, CPU).long() + LEVELS // 2) >> 13
    joint = sum((high[offset::group] * 8**offset for offset in range(group)), torch.zeros(1, dtype=torch.long))
    counts = torch.bincount(joint, minlength=8**group).double()
    expected = MANY / group / 8**group
    chi_squared, freedom = float(((counts - expected) ** 2 / expected).sum()), 8**group - 1
    assert abs(chi_squared - freedom) < SIGMAS * (2 * freedom) ** 0.5


def test_numbers_at_any_distance_are_uncorrelated() -> None:
    numbers = uniform(stream())
    for distance in (1, 2, 3, 4, 5, 8, 64, 4096, 1 << 16, BLOCK - 1, BLOCK, BLOCK + 2):
        assert abs(correlation(numbers[:-distance], numbers[distance:])) < SIGMAS, distance


def test_seeds_experts_tensors_and_blocks_are_independent() -> None:
    one = uniform(stream(), BLOCK)
    others = [stream(seed=1), stream(expert="b"), stream(tensor="v"), *(stream(tensor=f"{i}") for i in range(40))]
    for name in others:
        assert abs(correlation(one, uniform(name, BLOCK))) < SIGMAS, name
    for block in range(1, 20):
        assert abs(correlation(one, uniform(stream(), BLOCK, block * BLOCK))) < SIGMAS, block


def test_names_are_separated() -> None:
    assert not torch.equal(mask(0.5, expert="ab", tensor="c"), mask(0.5, expert="a", tensor="bc"))
    assert not torch.equal(mask(0.5, expert="a", tensor="w1"), mask(0.5, expert="a", tensor="w"))


def test_masks_are_computed_without_synchronization() -> None:
    values = torch.ones(3 * BLOCK + 5)
    with NoSync():
        CounterDrop(0, "a", "w", 0.5)(values)


def test_each_version_of_a_recipe_has_its_own_masks() -> None:
    kinds = {version: type(random_drop(version, 0, "a", "w", 0.5)) for version in (1, 2)}
    assert kinds == {1: RandomDrop, 2: CounterDrop}
    base = state_of(Small(0))
    pool = MergePool(Small(0), "base", base)
    pool.add_expert("a", fine_tune(base, 1))
    old = Recipe(method="dare_linear", base="base", experts=("a",), weights=(1.0,), densities=(0.5,))
    for version in (1, 2):
        pool.apply(old.model_copy(update={"mask_version": version}))
        kept = (pool.live.matrix != base["matrix"]).reshape(-1)
        drawn = random_drop(version, 0, "a", "matrix", 0.5)(torch.ones(kept.numel())) == 1
        changed = (fine_tune(base, 1)["matrix"] != base["matrix"]).reshape(-1)
        assert torch.equal(kept, drawn & changed)


def test_a_serialized_recipe_without_a_version_has_version_1() -> None:
    old = Recipe(method="dare_ties", base="base", experts=("a",), weights=(1.0,), densities=(0.5,))
    assert "mask_version" not in old.model_dump()
    assert Recipe.model_validate(old.model_dump()).mask_version == 1
    new = old.model_copy(update={"mask_version": 2})
    assert Recipe.model_validate(new.model_dump()) == new != old


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"method": "ties"}, "mask_version_unsupported"),
        ({"parameters": {"rescale": True}}, "mask_version_unsupported"),
        ({"mask_version": 3}, "less_than_equal"),
    ],
)
def test_only_dare_on_the_fast_path_has_mask_versions(parts: dict[str, object], kind: str) -> None:
    plain = {"method": "dare_ties", "base": "base", "experts": ("a",), "weights": (1.0,), "densities": (0.5,)}
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({**plain, "mask_version": 2, **parts})
    assert [error["type"] for error in caught.value.errors()] == [kind]


def test_new_searches_use_the_latest_version_for_dare() -> None:
    point = (0.5, 0.5)
    assert Genome("dare_ties", "base", ("a",)).recipe(point).mask_version == LATEST_MASK_VERSION == 2
    assert Genome("dare_ties", "base", ("a",), mask_version=1).recipe(point).mask_version == 1
    assert Genome("ties", "base", ("a",)).recipe(point).mask_version == 1
    by_mergekit = Genome("dare_ties", "base", ("a",), fixed_parameters=(("rescale", True),))
    assert by_mergekit.recipe(point).mask_version == 1
