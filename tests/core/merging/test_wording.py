"""The wording of messages about models that cannot be merged, and of a recipe in one line."""

from __future__ import annotations

import pytest
import torch

from core.errors import MergeError
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from tests.core.merging.small_pools import Small, state_of


def test_an_expert_of_another_shape_is_named_with_its_tensor() -> None:
    pool = MergePool(Small(0), "base", state_of(Small(0)))
    with pytest.raises(MergeError) as caught:
        pool.add_expert("a", {**state_of(Small(0)), "vector": torch.zeros(3)})
    assert caught.value.message == "a does not fit base: vector has shape (3,), expected (17,)."
    assert caught.value.hint == "Only models of the same architecture and size can be merged."


def test_a_recipe_in_one_line() -> None:
    recipe = Recipe(method="dare_ties", base="b", experts=("x",), weights=(0.62,), densities=(0.48,), seed=3)
    assert recipe.label == "dare_ties w=0.62 d=0.48 seed=3"
    assert "SafeMerge derives the masks from seed 3" in recipe.repeat_note


def test_leaving_out_the_only_weighted_expert_names_both() -> None:
    recipe = Recipe(method="linear", base="b", experts=("x", "y"), weights=(0, 1, 0))
    with pytest.raises(MergeError) as caught:
        recipe.without("x")
    assert caught.value.message == (
        "linear w=0.00/1.00/0.00 cannot be merged without x: linear weights cancel: their sum is zero."
    )
