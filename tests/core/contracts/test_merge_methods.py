"""The table of methods equals mergekit's registry, and pools and parameters that do not fit a method are refused."""

from __future__ import annotations

from typing import Any

import pytest
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import BasePolicy, MergeMethod, ParameterScope

from core.contracts.merge_methods import METHODS, fast_methods, mergekit_methods, rival_methods, takes_base
from core.contracts.method_checks import refuse_parameters, refuse_pool
from core.contracts.method_info import MethodParameter
from core.contracts.run_spec import RunSpec, parse_spec, spec_from_dict
from core.errors import SpecError

THEIRS: dict[str, MergeMethod] = {method.spec.name: method for method in registered_methods()}


def test_every_method_of_mergekit_is_known() -> None:
    assert set(METHODS) - set(rival_methods()) == set(THEIRS)
    assert tuple(METHODS) == (*fast_methods(), *mergekit_methods(), *rival_methods())


@pytest.mark.parametrize("name", THEIRS)
def test_parameters_are_mergekits(name: str) -> None:
    theirs = [
        MethodParameter(item.name, None if item.required else item.default, item.scope != ParameterScope.SHARED)
        for item in THEIRS[name].spec.parameters
    ]
    assert [*METHODS[name].parameters] == theirs
    for mine, their in zip(METHODS[name].parameters, theirs, strict=True):
        assert type(mine.default) is type(their.default)
    assert METHODS[name].title == THEIRS[name].spec.pretty_name


@pytest.mark.parametrize("experts", [1, 2, 3, 4])
@pytest.mark.parametrize("name", THEIRS)
def test_pools_are_refused_where_mergekit_refuses_them(name: str, experts: int) -> None:
    """The inputs that mergekit gets are those that its contract asks for; it never gets a base that it ignores."""
    contract = THEIRS[name].spec.contract
    with_base = takes_base(name, experts)
    assert with_base or contract.base != BasePolicy.REQUIRED
    inputs = ["base", *(f"expert{i}" for i in range(experts))]
    try:
        contract.validate_ids(inputs, "base" if with_base else None)
    except ValueError:
        fits = False
    else:
        fits = True
    assert (refuse_pool(name, experts, outside_ancestor=False) is None) == fits


def spec_of(experts: int = 2, pool: dict[str, Any] | None = None, **search: Any) -> RunSpec:
    models = [{"model": f"org/e{i}"} for i in range(experts)]
    return spec_from_dict(
        {
            "pool": {"base": "org/base", "experts": models, **(pool or {})},
            "data": {"safety": {"source": "file", "path": "s.jsonl"}},
            "search": {"compare": [], **search},
        }
    )


@pytest.mark.parametrize("name", [name for name in (*mergekit_methods(), *rival_methods()) if name != "passthrough"])
def test_any_method_is_accepted_and_survives_yaml(name: str) -> None:
    experts = 1 if METHODS[name].most == 2 else 2
    spec = spec_of(experts, method=name)
    assert parse_spec(spec.to_yaml()) == spec


def problems(experts: int = 2, pool: dict[str, Any] | None = None, **search: Any) -> list[tuple[str, str]]:
    """Place and kind of each problem of a spec that must be refused."""
    with pytest.raises(SpecError) as caught:
        spec_of(experts, pool, **search)
    return [(problem.place, problem.kind) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("experts", "pool", "method", "kind"),
    [
        (2, {}, "passthrough", "method_merges_nothing"),
        (2, {}, "nearswap", "too_many_models"),
        (2, {}, "arcee_fusion", "too_many_models"),
        (3, {}, "nuslerp", "too_many_models"),
        (1, {}, "model_stock", "too_few_models"),
        (1, {"ancestor": "org/old"}, "nearswap", "too_many_models"),
        (1, {"ancestor": "org/old"}, "karcher", "method_without_task_vectors"),
        (2, {}, "slerp", "too_many_models"),
        (1, {"ancestor": "org/old"}, "slerp", "method_without_task_vectors"),
        (1, {"ancestor": "org/old"}, "interpolation", "method_without_task_vectors"),
    ],
)
def test_methods_that_do_not_fit_the_pool_are_refused(
    experts: int, pool: dict[str, Any], method: str, kind: str
) -> None:
    assert problems(experts, pool, method=method) == [("spec", kind)]


def test_an_unknown_method_is_refused_at_its_key() -> None:
    assert problems(method="fisher") == [("search.method", "unknown_name")]


def test_an_ancestor_is_the_third_model_that_some_methods_need() -> None:
    assert spec_of(1, {"ancestor": "org/old"}, method="model_stock").pool.ancestor == "org/old"
    assert spec_of(1, {"ancestor": "org/old"}, method="nuslerp").pool.ancestor == "org/old"


@pytest.mark.parametrize(
    ("method", "parameters", "kind"),
    [
        ("ties", {"gamma": 0.1}, "unknown_parameter"),
        ("ties", {"density": 0.5}, "unknown_parameter"),
        ("slerp", {"t": 0.5}, "unknown_parameter"),
        ("ties", {"normalize": 2.5}, "not_a_boolean"),
        ("ties", {"lambda": True}, "not_a_number"),
        ("ties", {"lambda": float("nan")}, "not_finite"),
        ("ties", {"lambda": [1.0, 2.0]}, "not_per_model"),
        ("linear", {"normalize": False}, "scales_equal_tensors"),
        ("multislerp", {"weight": [1.0]}, "wrong_length"),
        ("breadcrumbs", {"density": 0}, "out_of_range"),
        ("breadcrumbs", {"density": 1.2}, "out_of_range"),
        ("breadcrumbs", {"gamma": -0.1}, "out_of_range"),
        ("karcher", {"max_iter": 0}, "not_a_whole_number"),
        ("karcher", {"max_iter": 2.5}, "not_a_whole_number"),
        ("safe_lora", {"threshold": 1.2}, "out_of_range"),
        ("safe_lora", {"projected_layers": 0}, "not_a_whole_number"),
        ("safemerge", {"safety_share": -0.1}, "out_of_range"),
        ("resta", {"drop_rate": 1.0}, "out_of_range"),
        ("lata", {"by_rank": 1}, "not_a_boolean"),
        ("mergealign", {"weight": 1.0}, "unknown_parameter"),
        ("della", {"density": 0.5}, "density_without_epsilon"),
        ("della", {"density": [0.5, 0.1], "epsilon": 0.2}, "density_and_epsilon_out_of_range"),
    ],
)
def test_parameters_that_a_method_cannot_have_are_refused(method: str, parameters: dict[str, Any], kind: str) -> None:
    assert problems(1 if method == "slerp" else 2, method=method, parameters=parameters) == [("spec", kind)]


def test_two_models_on_a_sphere_need_weights_that_add_up_to_one() -> None:
    refusal = refuse_parameters("multislerp", {"normalize_weights": False}, 1)
    assert refusal is not None and refusal.kind == "scales_equal_tensors"
    assert refuse_parameters("multislerp", {"normalize_weights": False}, 2) is None


def test_fixed_parameters_of_della_may_leave_task_vectors_whole() -> None:
    assert refuse_parameters("della", {"density": (1.0, 0.5), "epsilon": 0.2}, 2) is None


def test_grid_search_is_refused_for_a_method_without_values() -> None:
    for search in ({"optimizer": "grid"}, {"compare": ["grid"]}):
        assert problems(method="karcher", **search) == [("search", "method_without_grid")]
