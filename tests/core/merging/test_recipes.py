"""Recipes: what they refuse, their mergekit configuration, and the plain merge."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from pydantic import ValidationError

from core.errors import MergeError
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe, equal_weights
from core.merging.scopes import Scope

TIES = Recipe(method="ties", base="org/base", experts=("org/a", "x@v2"), weights=(0.25, 1.5), densities=(0.1, 1.0))


def test_ties_as_mergekit_configuration() -> None:
    mapping = yaml.safe_load(to_mergekit(TIES).to_yaml())
    assert mapping["merge_method"] == "ties"
    assert (mapping["dtype"], mapping["out_dtype"]) == ("float32", "bfloat16")
    assert mapping["base_model"] == "org/base"
    assert mapping["parameters"] == {"normalize": False, "lambda": 1.0}
    assert mapping["models"] == [
        {"model": "org/a", "parameters": {"weight": 0.25, "density": 0.1}},
        {"model": "x@v2", "parameters": {"weight": 1.5, "density": 1.0}},
    ]


def test_linear_lists_the_base_as_a_model_and_normalizes() -> None:
    recipe = Recipe(method="linear", base="org/base", experts=("org/a",), weights=(0.75, 0.5))
    mapping = yaml.safe_load(to_mergekit(recipe, out_dtype="float32").to_yaml())
    assert "base_model" not in mapping
    assert mapping["parameters"] == {"normalize": True}
    assert mapping["out_dtype"] == "float32"
    assert [(m["model"], m["parameters"]["weight"]) for m in mapping["models"]] == [("org/base", 0.75), ("org/a", 0.5)]


def test_dares_weights_stand_divided_by_the_densities() -> None:
    recipe = Recipe(method="dare_ties", base="org/base", experts=("org/a",), weights=(0.5,), densities=(0.25,), seed=7)
    mapping = yaml.safe_load(to_mergekit(recipe).to_yaml())
    assert mapping["merge_method"] == "dare_ties"
    assert mapping["models"] == [{"model": "org/a", "parameters": {"weight": 2.0, "density": 0.25}}]
    assert mapping["parameters"] == {"normalize": False, "lambda": 1.0, "rescale": False}
    assert "seed 7" in recipe.repeat_note
    assert "seed" not in TIES.repeat_note and "last bit" in TIES.repeat_note


def test_slerp_as_mergekit_configuration() -> None:
    recipe = Recipe(method="slerp", base="org/base", experts=("org/a",), weights=(0.3,))
    mapping = yaml.safe_load(to_mergekit(recipe).to_yaml())
    assert (mapping["merge_method"], mapping["base_model"]) == ("slerp", "org/base")
    assert [model["model"] for model in mapping["models"]] == ["org/base", "org/a"]
    assert mapping["parameters"] == {"t": 0.3}


def test_names_that_mergekit_does_not_know_are_replaced() -> None:
    recipe = equal_weights("ties", "demo/aligned", ("demo/chemistry", "org/b"))
    names = {"demo/aligned": "/base+/aligned", "demo/chemistry": "/base+/chemistry"}
    config = to_mergekit(recipe, names=names)
    assert str(config.base_model) == "/base+/aligned"
    assert [str(model.model) for model in config.models] == ["/base+/chemistry", "org/b"]
    assert str(config.models[0].model.lora) == "/chemistry"


@settings(derandomize=True, deadline=None, max_examples=40)
@given(weights=st.lists(st.floats(0, 10), min_size=2, max_size=2), densities=st.lists(st.floats(1e-6, 1), min_size=2))
def test_values_survive_mergekits_yaml(weights: list[float], densities: list[float]) -> None:
    recipe = TIES.model_copy(update={"weights": tuple(weights), "densities": tuple(densities[:2])})
    config = MergeConfiguration.model_validate(yaml.safe_load(to_mergekit(recipe).to_yaml()))
    assert tuple(model.parameters["weight"] for model in config.models) == recipe.weights
    assert tuple(model.parameters["density"] for model in config.models) == recipe.densities


def test_a_recipe_survives_json() -> None:
    assert Recipe.model_validate(TIES.model_dump(mode="json")) == TIES


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"weights": (1.0,)}, "wrong_weight_count"),
        ({"densities": None}, "densities_mismatch"),
        ({"densities": (0.5,)}, "wrong_density_count"),
        ({"densities": (0.0, 0.5)}, "density_out_of_range"),
        ({"densities": (0.5, 1.01)}, "density_out_of_range"),
        ({"method": "dare_ties", "densities": (0.0, 0.5)}, "density_out_of_range"),
        ({"method": "dare_linear", "densities": None}, "densities_mismatch"),
        ({"weights": (float("nan"), 1.0)}, "weight_not_finite"),
        ({"seed": -1}, "greater_than_equal"),
        ({"method": "slerp", "densities": None, "weights": (0.5, 0.5)}, "t_out_of_range"),
        ({"method": "slerp", "densities": None, "experts": ("org/a",), "weights": (1.1,)}, "t_out_of_range"),
        ({"method": "slerp", "densities": None, "experts": ("org/a",), "weights": (-0.1,)}, "t_out_of_range"),
        ({"densities": (float("nan"), 0.5)}, "density_out_of_range"),
        ({"method": "task_arithmetic"}, "densities_mismatch"),
        ({"method": "linear", "densities": None, "weights": (0.5, -0.5, 0.0)}, "weights_cancel"),
        ({"method": "linear", "densities": None}, "wrong_weight_count"),
    ],
)
def test_invalid_recipes_are_refused(change: dict[str, Any], kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(TIES.model_dump() | change)
    assert [error["type"] for error in caught.value.errors()] == [kind]


def test_equal_weights_share_the_whole_among_the_pools_models() -> None:
    assert equal_weights("ties", "base", ("a", "b")).weights == pytest.approx((1 / 3, 1 / 3))
    assert equal_weights("ties", "base", ("a", "b")).densities == (1.0, 1.0)
    assert equal_weights("linear", "base", ("a",)).weights == (0.5, 0.5)
    assert equal_weights("task_arithmetic", "base", ("a",)).densities is None
    assert equal_weights("dare_ties", "base", ("a",)).densities == (1.0,)
    assert equal_weights("slerp", "base", ("a",)).weights == (0.5,)


def test_an_outside_ancestor_has_no_share() -> None:
    assert equal_weights("ties", "ancestor", ("a", "b"), base_is_member=False).weights == (0.5, 0.5)
    assert equal_weights("linear", "ancestor", ("a", "b"), base_is_member=False).weights == (0.0, 0.5, 0.5)


def test_a_label_names_method_and_parameters() -> None:
    assert TIES.label == "ties w=0.25/1.50 d=0.10/1.00"
    assert equal_weights("slerp", "base", ("a",)).label == "slerp t=0.50"
    assert equal_weights("dare_linear", "base", ("a",)).label == "dare_linear w=0.50 d=1.00 seed=0"


@pytest.mark.parametrize(
    ("recipe", "left"),
    [
        (
            Recipe(method="ties", base="b", experts=("x", "y", "z"), weights=(1, 2, 3), densities=(0.1, 0.2, 0.3)),
            Recipe(method="ties", base="b", experts=("x", "z"), weights=(1, 3), densities=(0.1, 0.3)),
        ),
        (
            Recipe(method="linear", base="b", experts=("x", "y"), weights=(9, 1, 2)),
            Recipe(method="linear", base="b", experts=("x",), weights=(9, 1)),
        ),
        (
            Recipe(
                method="dare_ties",
                base="b",
                experts=("x", "y"),
                weights=(1, 2),
                densities=(0.5, 0.6),
                seed=4,
                parameters=(("lambda", 0.7),),
                scopes=(Scope(blocks=(0, 1), weights=(3, 4), densities=(0.1, 0.2)),),
                blocks=2,
            ),
            Recipe(
                method="dare_ties",
                base="b",
                experts=("x",),
                weights=(1,),
                densities=(0.5,),
                seed=4,
                parameters=(("lambda", 0.7),),
                scopes=(Scope(blocks=(0, 1), weights=(3,), densities=(0.1,)),),
                blocks=2,
            ),
        ),
        (
            Recipe(
                method="della",
                base="b",
                experts=("y", "x"),
                weights=(1, 2),
                densities=(0.4, 0.5),
                parameters=(("epsilon", (0.1, 0.2)),),
            ),
            Recipe(
                method="della",
                base="b",
                experts=("x",),
                weights=(2,),
                densities=(0.5,),
                parameters=(("epsilon", (0.2,)),),
            ),
        ),
    ],
)
def test_a_recipe_without_an_expert_keeps_the_other_values(recipe: Recipe, left: Recipe) -> None:
    assert recipe.without("y") == left


def test_an_expert_that_has_all_the_weight_cannot_be_left_out() -> None:
    recipe = Recipe(method="linear", base="b", experts=("x", "y"), weights=(0, 1, 0))
    assert recipe.without("y").weights == (0, 1)
    with pytest.raises(MergeError) as caught:
        recipe.without("x")
    assert caught.value.code == "expert-needed"
