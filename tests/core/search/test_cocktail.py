"""LM-Cocktail: Eq. 3 on hand-made losses, and a pool in which every model takes part."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import SpecError
from core.search.cocktail import Cocktail, cocktail_weights, parent_recipes
from core.search.genome import Genome

THREE = Genome("ties", "base", ("a", "b"))
losses = st.lists(st.floats(0, 30), min_size=1, max_size=5)
temperatures = st.floats(1e-3, 1e3)


def test_weights_are_the_softmax_of_minus_the_losses() -> None:
    shares = [math.exp(-loss / 5) for loss in (0.5, 2.0, 1.0)]
    assert cocktail_weights((0.5, 2.0, 1.0), 5.0) == pytest.approx([share / sum(shares) for share in shares])
    assert cocktail_weights((1.0, 1.0)) == (0.5, 0.5)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(losses=losses, temperature=temperatures)
def test_weights_add_up_to_one_and_a_lower_loss_weighs_no_less(losses: list[float], temperature: float) -> None:
    weights = cocktail_weights(losses, temperature)
    assert sum(weights) == pytest.approx(1.0)
    by_loss = [weight for _, weight in sorted(zip(losses, weights, strict=True), key=lambda pair: pair[0])]
    assert all(better >= worse for better, worse in pairwise(by_loss))


def test_temperature_goes_from_the_best_alone_to_all_alike() -> None:
    assert cocktail_weights((1.0, 1.1), 1e-300) == (1.0, 0.0)
    assert cocktail_weights((1.0, 1.1), 1e9) == pytest.approx((0.5, 0.5))


def test_a_failed_parent_gets_nothing() -> None:
    assert cocktail_weights((1.0, 1e6)) == (1.0, 0.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_invalid_temperatures_are_refused(temperature: float) -> None:
    for refused in (lambda: cocktail_weights((1.0, 2.0), temperature), lambda: Cocktail(THREE, temperature)):
        with pytest.raises(SpecError) as caught:
            refused()
        assert caught.value.code == "bad-temperature"


def test_it_asks_for_the_parents_and_mixes_all_of_them_linearly() -> None:
    cocktail = Cocktail(THREE)
    recipes = cocktail.ask()
    assert [recipe.weights for recipe in recipes] == [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    assert cocktail.size == 3
    cocktail.tell([0.0, math.log(2), math.log(4)])
    assert cocktail.ask() == []
    mixture = cocktail.result(recipes[0])
    assert mixture is not None
    assert mixture.method == "linear"
    assert mixture.weights == pytest.approx((4 / 7, 2 / 7, 1 / 7), abs=1e-6)
    assert cocktail.result(None) is None


def test_an_outside_ancestor_is_no_parent() -> None:
    outside = Genome("ties", "ancestor", ("a", "b"), base_is_member=False)
    assert {name: recipe.weights for name, recipe in parent_recipes(outside).items()} == {
        "a": (0.0, 1.0, 0.0),
        "b": (0.0, 0.0, 1.0),
    }
    cocktail = Cocktail(outside)
    first, _ = cocktail.ask()
    cocktail.tell([1.0, 1.0])
    mixture = cocktail.result(first)
    assert mixture is not None and mixture.weights == (0.0, 0.5, 0.5)
