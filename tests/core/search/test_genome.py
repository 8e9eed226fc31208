"""From points of the unit cube to recipes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts.merge_methods import METHODS, FastMethod, mergekit_methods
from core.contracts.method_info import MethodParameter
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe, equal_weights
from core.search.genome import Genome, LogParameter, Parameter
from core.search.parameter_groups import Layout
from core.search.parameter_ranges import Range, range_of
from core.search.registry import make_optimizer
from core.search.search_plan import SearchPlan

units = st.floats(0.0, 1.0)


def genome_of(method: FastMethod, experts: int, base_is_member: bool = True) -> Genome:
    return Genome(method, "base", tuple(f"expert{i}" for i in range(experts)), base_is_member)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    method=st.sampled_from(["ties", "dare_ties", "dare_linear", "slerp", "task_arithmetic", "linear"]),
    experts=st.integers(1, 3),
    member=st.booleans(),
    data=st.data(),
)
def test_every_point_is_a_recipe_within_bounds(
    method: FastMethod, experts: int, member: bool, data: st.DataObject
) -> None:
    experts = 1 if method == "slerp" else experts
    genome = genome_of(method, experts, member)
    point = data.draw(st.lists(units, min_size=len(genome.searched), max_size=len(genome.searched)))
    recipe = genome.recipe(point)
    assert recipe.method == method
    assert recipe.experts == genome.experts
    assert all(0 <= value <= (1.0 if method in ("linear", "slerp") else 1.5) for value in recipe.weights)
    assert all(0.05 <= value <= 1 for value in recipe.densities or ())
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert len(to_mergekit(recipe).models) == experts + (method in ("linear", "slerp"))


def test_the_corners_are_the_bounds() -> None:
    genome = genome_of("ties", 1)
    assert [parameter.name for parameter in genome.searched] == ["weight:expert0", "density:expert0"]
    assert (genome.recipe([0, 0]).weights, genome.recipe([0, 0]).densities) == ((0.0,), (0.05,))
    assert (genome.recipe([1, 1]).weights, genome.recipe([1, 1]).densities) == ((1.5,), (1.0,))


def test_dare_searches_weights_and_densities_under_one_seed() -> None:
    genome = Genome("dare_ties", "base", ("a",), seed=11)
    assert [parameter.name for parameter in genome.searched] == ["weight:a", "density:a"]
    assert genome.recipe([0, 0]).densities == (0.1,)
    assert {genome.recipe(point).seed for point in ([0, 0], [0.4, 0.6], [1, 1])} == {11}
    assert Genome("ties", "base", ("a",), seed=11).recipe([0, 0]).seed == 0  # it draws no masks


def test_slerp_searches_t_alone() -> None:
    genome = genome_of("slerp", 1)
    assert [parameter.name for parameter in genome.searched] == ["t"]
    assert [genome.recipe([unit]).weights for unit in (0.0, genome.searched[0].unit_start, 1.0)] == [
        (0.0,),
        (0.5,),
        (1.0,),
    ]


def test_points_outside_the_cube_are_clipped() -> None:
    assert genome_of("ties", 1).recipe([-3.0, 7.0]) == genome_of("ties", 1).recipe([0.0, 1.0])


def test_the_start_is_half_way_from_base_to_experts() -> None:
    genome = genome_of("ties", 2)
    recipe = genome.recipe([parameter.unit_start for parameter in genome.searched])
    assert recipe.weights == (0.25, 0.25)
    assert recipe.densities == (0.6, 0.6)


def test_a_linear_merge_of_nothing_is_the_plain_one() -> None:
    assert genome_of("linear", 2).recipe([0, 0, 0]).weights == (1.0, 1.0, 1.0)
    assert genome_of("linear", 2).recipe([0, 0, 1e-6]).weights == (0.0, 0.0, 1e-6)


def test_an_outside_ancestor_gets_no_weight_of_its_own() -> None:
    genome = genome_of("linear", 2, base_is_member=False)
    assert [parameter.name for parameter in genome.searched] == ["weight:expert0", "weight:expert1"]
    assert genome.recipe([0.25, 0.75]).weights == (0.0, 0.25, 0.75)


def test_a_point_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        genome_of("ties", 2).recipe([0.5, 0.5])


def test_a_parameter_maps_its_unit_start_to_its_start() -> None:
    parameter = Parameter("weight", 0.5, 2.5, 1.0)
    assert parameter.value(parameter.unit_start) == 1.0


def registered(method: str, experts: int = 0, **fixed: object) -> Genome:
    count = experts or (1 if METHODS[method].most == 2 else 2)
    return Genome(method, "base", ("a", "b", "c")[:count], seed=7, fixed_parameters=tuple(sorted(fixed.items())))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(method=st.sampled_from([name for name in mergekit_methods() if name != "passthrough"]), data=st.data())
def test_every_point_of_any_method_is_a_recipe_that_survives_json(method: str, data: st.DataObject) -> None:
    genome = registered(method)
    point = data.draw(st.lists(units, min_size=len(genome.searched), max_size=len(genome.searched)))
    recipe = genome.recipe(point)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert hash(recipe) == hash(Recipe.model_validate(recipe.model_dump(mode="json")))
    epsilons = dict(recipe.parameters)["epsilon"] if method.startswith("della") else ()
    for density, epsilon in zip(recipe.densities or (), epsilons, strict=False):
        assert density - epsilon > 0
        assert density + epsilon < 1
    assert recipe.seed == (7 if METHODS[method].random else 0)
    assert to_mergekit(recipe).merge_method == method


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("breadcrumbs", ["weight:a", "weight:b", "density:a", "density:b", "gamma:a", "gamma:b"]),
        ("della", ["lambda", "weight:a", "weight:b", "density:a", "density:b", "epsilon:a", "epsilon:b"]),
        ("della_linear", ["weight:a", "weight:b", "density:a", "density:b", "epsilon:a", "epsilon:b"]),
        ("multislerp", ["weight:a", "weight:b"]),
        ("ramplus_tl", ["r", "alpha", "epsilon"]),
        ("sce", ["select_topk"]),
        ("nearswap", ["t"]),
        ("karcher", []),
        ("model_stock", []),
        ("arcee_fusion", []),
    ],
)
def test_a_methods_own_parameters_are_searched(method: str, names: list[str]) -> None:
    assert [parameter.name for parameter in registered(method).searched] == names
    assert all(
        parameter.low <= parameter.value(parameter.unit_start) <= parameter.high
        for parameter in registered(method).searched
    )


def test_two_models_on_an_arc_both_have_a_weight() -> None:
    genome = registered("nuslerp", 1)
    assert [parameter.name for parameter in genome.searched] == ["weight:base", "weight:a"]
    assert genome.recipe([parameter.unit_start for parameter in genome.searched]).weights == (0.5, 0.5)
    assert registered("multislerp", 1).recipe([0, 0]).weights == (1.0, 1.0)


def test_fixed_parameters_are_not_searched_but_in_every_recipe() -> None:
    genome = registered("breadcrumbs", gamma=0.02, density=(0.5, 0.25), normalize=True)
    assert [parameter.name for parameter in genome.searched] == ["lambda", "weight:a", "weight:b"]
    recipe = genome.recipe([0.5, 0.5, 0.5])
    assert recipe.densities == (0.5, 0.25)
    assert dict(recipe.parameters) == {"gamma": 0.02, "lambda": 1.0, "normalize": True}
    one = registered("multislerp", weight=0.5)
    assert (one.searched, one.recipe([]).weights) == ((), (0.5, 0.5))
    fast = Genome("ties", "base", ("a",), fixed_parameters=(("lambda", 0.8), ("normalize", True)))
    assert fast.recipe([0.5, 0.5]).parameters == (("lambda", 0.8), ("normalize", True))
    assert fast.linear.recipe([1, 0]).parameters == ()


def test_thresholds_are_searched_by_their_logarithm() -> None:
    parameter = next(parameter for parameter in registered("nearswap").searched)
    assert isinstance(parameter, LogParameter)
    assert [parameter.value(unit) for unit in (0.0, 0.5, 1.0)] == pytest.approx([1e-5, 1e-3, 1e-1])
    assert parameter.unit_start == pytest.approx(0.5)
    assert registered("ram").recipe([0.0]).parameters == (("epsilon", 1e-07),)


def test_unknown_parameters_are_searched_around_their_default() -> None:
    assert range_of("sce", MethodParameter("novelty", 0.4), 1, {}) == Range(0.0, 0.8, 0.4)
    assert range_of("sce", MethodParameter("novelty", -2.0), 1, {}) == Range(-4.0, 0.0, -2.0)
    assert range_of("sce", MethodParameter("novelty", None), 1, {}) == Range(0.0, 1.0, 0.5)


def test_the_plain_merge_of_any_method_has_equal_weights_and_whole_task_vectors() -> None:
    assert genome_of("ties", 2).plain() == equal_weights("ties", "base", ("expert0", "expert1"))
    plain = registered("della", 2).plain()
    assert plain.weights == pytest.approx((1 / 3, 1 / 3))
    assert plain.densities == (1.0, 1.0)
    assert dict(registered("nearswap").plain().parameters) == {"t": 0.001}


def test_a_method_without_parameters_is_one_candidate() -> None:
    genome = registered("karcher")
    optimizer = make_optimizer(SearchPlan("evomm", genome, steps=20, alpha=0.3, safety=True, seed=0))
    assert (optimizer.size, optimizer.ended_early) == (1, "")
    (recipe,) = optimizer.ask()
    optimizer.tell([1.0])
    assert optimizer.ask() == []
    assert optimizer.result(recipe) == recipe == genome.plain()


@pytest.mark.parametrize(
    ("genome", "axes"),
    [
        (Genome("ties", "base", ("a",), layout=Layout(4, 2)), (0, 1, 0, 1)),
        (Genome("ties", "base", ("a", "b")), (0, 0, 1, 1)),
        (Genome("linear", "base", ("a", "b"), layout=Layout(4, 2)), (0, 1, 2, 0, 1, 2)),
        (Genome("task_arithmetic", "base", ("a", "b"), normalize=True), (0, 1)),
        (Genome("breadcrumbs", "base", ("a", "b")), (0, 0, 1, 1, 2, 2)),
    ],
)
def test_groups_and_experts_share_axes_unless_only_proportions_count(genome: Genome, axes: tuple[int, ...]) -> None:
    assert genome.shared_axes == axes


def test_shares_on_an_arc_keep_their_own_axes() -> None:
    genome = Genome("nuslerp", "base", ("a", "b"))
    assert genome.shared_axes == tuple(range(len(genome.searched)))
