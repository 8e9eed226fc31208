"""Which tensors share their numbers, which numbers cannot matter, and what a wrong layout is answered with."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.contracts.merge_methods import FastMethod
from core.contracts.run_spec import GenomeSpec
from core.errors import SpecError
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe, by_tensor
from core.search.cocktail import Cocktail, parent_recipes
from core.search.evomm import EvoMM
from core.search.genome import LEAST_NEGATIVE, Genome, inactive_note
from core.search.grid import grid_recipes
from core.search.parameter_groups import Layout, layout_of

BLOCKS = 6
TENSORS = (
    "model.embed_tokens.weight",
    *(f"model.layers.{n}.{part}.weight" for n in range(BLOCKS) for part in ("self_attn.q_proj", "mlp.up_proj")),
    "model.norm.weight",
)
LATE = frozenset(name for name in TENSORS if ".4." in name or ".5." in name)


def genome_of(method: FastMethod, experts: int = 1, changed: dict[str, Any] | None = None, **spec: Any) -> Genome:
    names = tuple(f"e{number}" for number in range(experts))
    wanted = GenomeSpec(**spec)
    return Genome(
        method,
        "base",
        names,
        seed=3,
        layout=layout_of(wanted, TENSORS, changed),
        negative_weights=wanted.allow_negative_weights,
        normalize=wanted.normalize,
    )


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    method=st.sampled_from(["ties", "dare_ties", "dare_linear", "slerp", "task_arithmetic", "linear"]),
    experts=st.integers(1, 3),
    size=st.none() | st.integers(1, BLOCKS),
    filters=st.sampled_from([(), ("self_attn",), ("mlp", "self_attn")]),
    smooth=st.booleans(),
    negative=st.booleans(),
    data=st.data(),
)
def test_every_point_is_a_recipe_that_reads_back(
    method: FastMethod,
    experts: int,
    size: int | None,
    filters: tuple[str, ...],
    smooth: bool,
    negative: bool,
    data: Any,
) -> None:
    smooth, negative = smooth and size is not None, negative and method != "slerp"
    experts = 1 if method == "slerp" else experts
    genome = genome_of(
        method,
        experts,
        layer_granularity=size,
        filters=filters,
        smooth=smooth,
        allow_negative_weights=negative,
    )
    groups = 1 if size is None else -(-BLOCKS // size)
    alone = genome.basic
    assert len(genome.searched) == len(alone.searched) * groups * (1 + len(filters))
    assert len({parameter.name for parameter in genome.searched}) == len(genome.searched)
    point = data.draw(st.lists(st.floats(0, 1), min_size=len(genome.searched), max_size=len(genome.searched)))
    recipe = genome.recipe(point)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    least = LEAST_NEGATIVE if negative else 0.0
    for part in by_tensor(recipe, TENSORS).values():
        assert all(least <= weight <= 1.5 for weight in part.weights)
    assert to_mergekit(recipe).merge_method == method


def test_a_layout_of_one_group_is_the_plain_genome() -> None:
    genome, plain = genome_of("ties", layer_granularity=BLOCKS), Genome("ties", "base", ("e0",))
    assert genome.searched == plain.searched
    assert genome.recipe([0.3, 0.7]) == plain.recipe([0.3, 0.7])
    assert not genome.recipe([0.3, 0.7]).scopes


def test_each_group_and_filter_has_its_own_parameters() -> None:
    genome = genome_of("task_arithmetic", layer_granularity=4, filters=("mlp",))
    assert [parameter.name for parameter in genome.searched] == [
        "weight:e0 (blocks 0-3, mlp)",
        "weight:e0 (blocks 0-3, rest)",
        "weight:e0 (blocks 4-5, mlp)",
        "weight:e0 (blocks 4-5, rest)",
    ]
    recipe = genome.recipe([0.0, 0.2, 0.4, 0.6])
    found = {name: part.weights[0] for name, part in by_tensor(recipe, TENSORS).items()}
    assert found["model.layers.3.mlp.up_proj.weight"] == 0.0
    assert found["model.embed_tokens.weight"] == found["model.layers.0.self_attn.q_proj.weight"] == 0.3
    assert found["model.layers.4.mlp.up_proj.weight"] == 0.6
    assert found["model.norm.weight"] == found["model.layers.5.self_attn.q_proj.weight"] == 0.9
    assert recipe.weights == (0.45,)


def test_filters_alone_leave_the_rest_to_the_recipe() -> None:
    recipe = genome_of("task_arithmetic", filters=("mlp",)).recipe([0.2, 0.4])
    assert recipe.weights == (0.6,)
    assert [(scope.blocks, scope.filter, scope.weights) for scope in recipe.scopes] == [(None, "mlp", (0.3,))]


def test_smooth_parameters_are_interpolated_linearly() -> None:
    recipe = genome_of("task_arithmetic", layer_granularity=3, smooth=True).recipe([0.2, 0.8])
    weights = [scope.weights[0] for scope in recipe.scopes]
    assert (len(weights), weights[0], weights[-1]) == (BLOCKS, 0.3, 1.2)
    assert [after - before for before, after in pairwise(weights)] == pytest.approx([0.18] * 5)


@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "slerp"])
@pytest.mark.parametrize("smooth", [False, True])
def test_parameters_of_tensors_that_no_expert_changes_are_not_searched(method: FastMethod, smooth: bool) -> None:
    every = genome_of(method, layer_granularity=2, smooth=smooth)
    genome = genome_of(method, layer_granularity=2, smooth=smooth, changed={"e0": LATE})
    each, reached = len(every.basic.searched), 2 if smooth else 1
    assert (len(genome.searched), genome.inactive) == (reached * each, (3 - reached) * each)
    assert f"{genome.inactive} of {3 * each} parameters" in inactive_note(genome)
    assert inactive_note(every) == ""
    low, high = (genome.recipe([unit] * len(genome.searched)) for unit in (0.0, 1.0))
    found = [by_tensor(recipe, TENSORS) for recipe in (low, high)]
    assert all(found[0][name].weights != found[1][name].weights for name in LATE)
    assert {block for scope in high.scopes for block in range(*scope.blocks or ())} >= {4, 5}


def test_an_experts_parameters_are_searched_where_it_changes_tensors() -> None:
    early = frozenset(TENSORS) - LATE
    changed = {"e0": LATE, "e1": early}
    ties = genome_of("ties", 2, changed, layer_granularity=2)
    assert [parameter.name.split()[0] for parameter in ties.searched] == ["weight:e1", "density:e1"] * 2 + [
        *("weight:e0", "weight:e1", "density:e0", "density:e1")  # the final norm, which e1 changes, goes with them
    ]
    assert len(genome_of("linear", 2, changed, layer_granularity=2).searched) == 9  # they share a sum
    assert len(genome_of("task_arithmetic", 2, changed, layer_granularity=2, normalize=True).searched) == 6
    alone = genome_of("ties", 2, changed, layer_granularity=2, normalize=True)
    assert [parameter.name.split()[0] for parameter in alone.searched][:2] == [
        "density:e1"
    ] * 2  # its weight is divided by itself


def test_experts_that_are_the_base_leave_the_layout_whole() -> None:
    assert layout_of(GenomeSpec(layer_granularity=2), TENSORS, {"e0": frozenset()}).changed is None


@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
def test_negative_weights_only_when_allowed(method: FastMethod) -> None:
    assert genome_of(method).recipe([0.0] * 2 if method == "ties" else [0.0]).weights == (0.0,)
    genome = genome_of(method, allow_negative_weights=True)
    assert genome.recipe([0.0] * len(genome.searched)).weights == (-1.0,)
    start = genome.recipe([parameter.unit_start for parameter in genome.searched])
    assert start.weights == (0.5,)


def test_linear_weights_that_cancel_are_equal() -> None:
    genome = genome_of("linear", 1, allow_negative_weights=True)
    assert genome.recipe([0.25, 0.75]).weights == (1.0, 1.0)  # -0.5 and 0.5
    assert genome.recipe([0.25, 1.0]).weights == (-0.5, 1.0)


def test_a_linear_merge_needs_no_normalize() -> None:
    assert genome_of("linear", normalize=True).recipe([0.5, 0.5]).normalize is False
    assert genome_of("ties", 2, normalize=True).recipe([0.5] * 4).normalize is True


def test_grid_and_cocktail_keep_one_set_of_parameters() -> None:
    genome = genome_of("ties", layer_granularity=2, allow_negative_weights=True)
    assert grid_recipes(genome) == grid_recipes(Genome("ties", "base", ("e0",), seed=3))
    assert parent_recipes(genome)["e0"].weights == (0.0, 1.0)
    cocktail = Cocktail(genome)
    cocktail.tell([1.0 for _ in cocktail.ask()])
    found = cocktail.result(grid_recipes(genome)[0])
    assert found is not None and found.weights == (0.5, 0.5) and not found.scopes


def test_evomm_searches_groups() -> None:
    genome = genome_of("ties", layer_granularity=1, filters=("mlp",), changed={"e0": LATE})
    optimizer = EvoMM(genome, 30, 0)
    assert optimizer.population == 10
    assert len(genome.searched) == 8
    recipes = optimizer.ask()
    assert len({recipe.scopes for recipe in recipes}) == 10


@pytest.mark.parametrize(
    ("spec", "code"),
    [({"layer_granularity": 7}, "too-few-blocks"), ({"filters": ("attention",)}, "unmatched-filter")],
)
def test_a_layout_that_does_not_fit_the_model_is_refused(spec: dict[str, Any], code: str) -> None:
    with pytest.raises(SpecError) as caught:
        layout_of(GenomeSpec(**spec), TENSORS)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_filter_that_an_earlier_one_contains_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        GenomeSpec(filters=("q_proj", "model.layers.0.self_attn.q_proj"))
    assert [error["type"] for error in caught.value.errors()] == ["shadowed_filter"]


def test_a_model_whose_tensor_names_show_no_blocks_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        layout_of(GenomeSpec(layer_granularity=1), ("matrix", "vector"))
    assert caught.value.code == "too-few-blocks"


def test_a_filter_without_tensors_of_its_own_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        layout_of(GenomeSpec(filters=("model.", "weight")), TENSORS)
    assert caught.value.code == "unmatched-filter"


def test_a_smooth_point_is_named_by_its_number() -> None:
    layout = Layout(6, 3, smooth=True)
    assert [layout.label(group) for group in layout.parameter_groups] == ["point 1 of 2", "point 2 of 2"]
