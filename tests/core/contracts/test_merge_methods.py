"""The table of methods is mergekit's registry, and what does not fit a pool or a method is refused with the reason."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import BasePolicy, MergeMethod, ParameterScope

from core.contracts.merge_methods import (
    FAST,
    METHODS,
    REGISTERED,
    MethodParameter,
    refuse_parameters,
    refuse_pool,
    takes_base,
)
from core.contracts.run_spec import Method, RegisteredMethod, RunSpec, parse_spec, spec_from_dict
from core.errors import SpecError

THEIRS: dict[str, MergeMethod] = {method.spec.name: method for method in registered_methods()}


def test_every_method_of_mergekit_is_known() -> None:
    assert set(METHODS) == set(THEIRS)
    assert set(get_args(Method)) == set(FAST)
    assert get_args(RegisteredMethod) == tuple(REGISTERED)


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
    assert (refuse_pool(name, experts, outside_ancestor=False) == "") == fits


def spec_of(experts: int = 2, pool: dict[str, Any] | None = None, **search: Any) -> RunSpec:
    models = [{"model": f"org/e{i}"} for i in range(experts)]
    return spec_from_dict(
        {
            "pool": {"base": "org/base", "experts": models, **(pool or {})},
            "data": {"safety": {"source": "file", "path": "s.jsonl"}},
            "search": {"compare": [], **search},
        }
    )


@pytest.mark.parametrize("name", [name for name in REGISTERED if name != "passthrough"])
def test_any_method_is_accepted_and_survives_yaml(name: str) -> None:
    experts = 1 if METHODS[name].most == 2 else 2
    spec = spec_of(experts, method=name)
    assert parse_spec(spec.to_yaml()) == spec


@pytest.mark.parametrize(
    ("experts", "pool", "method", "words"),
    [
        (2, {}, "passthrough", "copies one model and merges nothing"),
        (2, {}, "nearswap", "merges exactly two models, the base among them, but the pool has 3"),
        (2, {}, "arcee_fusion", "exactly two models"),
        (3, {}, "nuslerp", "at most three models"),
        (1, {}, "model_stock", "at least 3 models, the base among them, but the pool has 2: add an expert"),
        (1, {"ancestor": "org/old"}, "nearswap", "the pool has 3 with its ancestor"),
        (1, {"ancestor": "org/old"}, "karcher", "takes no task vectors, but pool.ancestor is set"),
        (2, {}, "slerp", "exactly two models"),
        (1, {}, "fisher", "search.method"),
    ],
)
def test_methods_that_cannot_work_are_refused_with_the_reason(
    experts: int, pool: dict[str, Any], method: str, words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(experts, pool, method=method)
    assert words in caught.value.message


def test_an_ancestor_is_the_third_model_that_some_methods_need() -> None:
    assert spec_of(1, {"ancestor": "org/old"}, method="model_stock").pool.ancestor == "org/old"
    assert spec_of(1, {"ancestor": "org/old"}, method="nuslerp").pool.ancestor == "org/old"


@pytest.mark.parametrize(
    ("method", "parameters", "words"),
    [
        ("ties", {"gamma": 0.1}, "'ties' has no parameter 'gamma' to fix; it has: int8_mask, normalize"),
        ("ties", {"density": 0.5}, "no parameter 'density' to fix"),
        ("slerp", {"t": 0.5}, "it has: none"),
        ("ties", {"normalize": 2.5}, "is true or false"),
        ("ties", {"lambda": True}, "is a number, not True"),
        ("ties", {"lambda": float("nan")}, "must be finite"),
        ("ties", {"lambda": [1.0, 2.0]}, "one number for all models"),
        ("linear", {"normalize": False}, "use task_arithmetic"),
        ("multislerp", {"weight": [1.0]}, "one for each of 2 models, got 1"),
        ("breadcrumbs", {"density": 0}, "lies in (0, 1]"),
        ("breadcrumbs", {"density": 1.2}, "lies in [0, 1]"),
        ("breadcrumbs", {"gamma": -0.1}, "lies in [0, 1]"),
        ("karcher", {"max_iter": 0}, "whole number from 1"),
        ("karcher", {"max_iter": 2.5}, "whole number from 1"),
        ("della", {"density": 0.5}, "fix both density and epsilon"),
        ("della", {"density": [0.5, 0.1], "epsilon": 0.2}, "must lie in (0, 1)"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(method: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(1 if method == "slerp" else 2, method=method, parameters=parameters)
    assert "search.parameters" in caught.value.message
    assert words in caught.value.message


def test_two_models_on_a_sphere_need_weights_that_add_up_to_one() -> None:
    assert "would scale" in refuse_parameters("multislerp", {"normalize_weights": False}, 1)
    assert refuse_parameters("multislerp", {"normalize_weights": False}, 2) == ""


def test_fixed_parameters_of_della_may_leave_task_vectors_whole() -> None:
    assert refuse_parameters("della", {"density": (1.0, 0.5), "epsilon": 0.2}, 2) == ""


def test_grid_search_names_the_methods_it_has_values_for() -> None:
    for search in ({"optimizer": "grid"}, {"compare": ["grid"]}):
        with pytest.raises(SpecError, match="no values for 'karcher': it knows ties"):
            spec_of(method="karcher", **search)
