"""From points of the unit cube to recipes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.merging.recipes import Recipe
from core.search.genome import Gene, Genome
from core.specs import Method

units = st.floats(0.0, 1.0)


def genome_of(method: Method, experts: int, base_is_member: bool = True) -> Genome:
    return Genome(method, "base", tuple(f"expert{i}" for i in range(experts)), base_is_member)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    method=st.sampled_from(["ties", "dare_ties", "dare_linear", "slerp", "task_arithmetic", "linear"]),
    experts=st.integers(1, 3),
    member=st.booleans(),
    data=st.data(),
)
def test_every_point_is_a_recipe_within_bounds(method: Method, experts: int, member: bool, data: st.DataObject) -> None:
    experts = 1 if method == "slerp" else experts
    genome = genome_of(method, experts, member)
    point = data.draw(st.lists(units, min_size=len(genome.genes), max_size=len(genome.genes)))
    recipe = genome.recipe(point)
    assert recipe.method == method
    assert recipe.experts == genome.experts
    assert all(0 <= value <= (1.0 if method in ("linear", "slerp") else 1.5) for value in recipe.weights)
    assert all(0.05 <= value <= 1 for value in recipe.densities or ())
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert len(recipe.to_mergekit().models) == experts + (method in ("linear", "slerp"))


def test_the_corners_are_the_bounds() -> None:
    genome = genome_of("ties", 1)
    assert [gene.name for gene in genome.genes] == ["weight:expert0", "density:expert0"]
    assert (genome.recipe([0, 0]).weights, genome.recipe([0, 0]).densities) == ((0.0,), (0.05,))
    assert (genome.recipe([1, 1]).weights, genome.recipe([1, 1]).densities) == ((1.5,), (1.0,))


def test_dare_searches_weights_and_densities_under_one_seed() -> None:
    genome = Genome("dare_ties", "base", ("a",), seed=11)
    assert [gene.name for gene in genome.genes] == ["weight:a", "density:a"]
    assert genome.recipe([0, 0]).densities == (0.1,)
    assert {genome.recipe(point).seed for point in ([0, 0], [0.4, 0.6], [1, 1])} == {11}
    assert Genome("ties", "base", ("a",), seed=11).recipe([0, 0]).seed == 0  # it draws no masks


def test_slerp_searches_t_alone() -> None:
    genome = genome_of("slerp", 1)
    assert [gene.name for gene in genome.genes] == ["t"]
    assert [genome.recipe([unit]).weights for unit in (0.0, genome.genes[0].unit_start, 1.0)] == [
        (0.0,),
        (0.5,),
        (1.0,),
    ]


def test_points_outside_the_cube_are_clipped() -> None:
    assert genome_of("ties", 1).recipe([-3.0, 7.0]) == genome_of("ties", 1).recipe([0.0, 1.0])


def test_the_start_is_half_way_from_base_to_experts() -> None:
    genome = genome_of("ties", 2)
    recipe = genome.recipe([gene.unit_start for gene in genome.genes])
    assert recipe.weights == (0.25, 0.25)
    assert recipe.densities == (0.6, 0.6)


def test_a_linear_merge_of_nothing_is_the_plain_one() -> None:
    assert genome_of("linear", 2).recipe([0, 0, 0]).weights == (1.0, 1.0, 1.0)
    assert genome_of("linear", 2).recipe([0, 0, 1e-6]).weights == (0.0, 0.0, 1e-6)


def test_an_outside_ancestor_gets_no_weight_of_its_own() -> None:
    genome = genome_of("linear", 2, base_is_member=False)
    assert [gene.name for gene in genome.genes] == ["weight:expert0", "weight:expert1"]
    assert genome.recipe([0.25, 0.75]).weights == (0.0, 0.25, 0.75)


def test_a_point_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        genome_of("ties", 2).recipe([0.5, 0.5])


def test_a_gene_maps_its_start_onto_itself() -> None:
    gene = Gene("weight", 0.5, 2.5, 1.0)
    assert gene.value(gene.unit_start) == 1.0
