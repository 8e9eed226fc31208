"""The fast path gives mergekit's own result, for any method, shape and number format.

Tolerance: none for TIES, DARE and task arithmetic, which do the same float32 operations in the same order, with
mergekit's options (normalize, rescale, lambda, int8_mask) or without; but for float32's rounding where `rescale` adds
up a tensor in pieces, and of five experts or more, which torch adds in another order. For linear a few float32
roundings of the terms' sizes, as mergekit adds weighted models where we add weighted task vectors to the base. For
SLERP the roundings of its two terms, and what mergekit's float32 cosine is off: the factors' slope in the angle times
the angle's error, which grows as the tensors near opposite directions. Of several magnitudes equal to the trim
threshold mergekit keeps those its sort happens to put first, we keep the first by place: here magnitudes within a
tensor differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.contracts import merge_methods
from core.merging import arithmetic
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from tests.core.merging.small_pools import Small, State, by_mergekit, fine_tune, pool_of, state_of

EPSILON = 2.0**-24
EXPERTS = ("a", "b", "c")
METHODS = ("ties", "dare_ties", "dare_linear", "task_arithmetic", "linear", "slerp")

NORMS: dict[str, st.SearchStrategy[Any]] = {
    "lambda": st.sampled_from([1.0, 0.7, -0.5, 2.0]),
    "normalize": st.booleans(),
    "rescale": st.booleans(),
    "int8_mask": st.booleans(),
}
OPTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "ties": NORMS,
    "task_arithmetic": NORMS,
    **{key: {"lambda": NORMS["lambda"], "int8_mask": NORMS["int8_mask"]} for key in ("dare_ties", "dare_linear")},
    "linear": {"normalize": st.just(True)},
    "slerp": {},
}
"""What the fast path has of mergekit's options."""

weight = st.one_of(st.floats(-1.0, 3.0), st.sampled_from([0.0, 1.0, 1.5, -1.0]))
density = st.one_of(st.floats(0.001, 1.0), st.sampled_from([1e-6, 0.05, 0.5, 1.0]))
shape = st.lists(st.integers(1, 9), min_size=0, max_size=3).map(tuple)


@st.composite
def recipes(draw: st.DrawFn, methods: tuple[str, ...] = METHODS) -> Recipe:
    method = draw(st.sampled_from(methods))
    experts = EXPERTS[: 1 if method == "slerp" else draw(st.sampled_from([1, 2, 3]))]
    count = len(experts) + (method == "linear")
    one = st.floats(0.0, 1.0) if method == "slerp" else st.floats(0.0, 3.0) if method == "linear" else weight
    weights = draw(st.lists(one, min_size=count, max_size=count).filter(lambda w: method != "linear" or sum(w) > 0.1))
    sparse = merge_methods.METHODS[method].has_densities
    densities = draw(st.lists(density, min_size=count, max_size=count)) if sparse else None
    return Recipe(
        method=method,
        base="base",
        experts=experts,
        weights=tuple(weights),
        densities=densities,
        seed=draw(st.integers(0, 9)),
        parameters=draw(st.fixed_dictionaries({}, optional=OPTIONS[method])),
        mask_version=draw(st.sampled_from([1, 2])) if method.startswith("dare") else 1,
    )


@settings(
    derandomize=True, deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    recipe=recipes(),
    shapes=st.lists(shape, min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 1000),
    piece=st.sampled_from([4, 64, 1 << 19]),
)
def test_a_merge_equals_mergekits(
    recipe: Recipe,
    shapes: list[tuple[int, ...]],
    dtype: torch.dtype,
    seed: int,
    piece: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arithmetic, "_PIECE", piece)
    named = {"same": (3,)} | {f"t{i}": shape for i, shape in enumerate(shapes)}
    base = state_of(Small(seed, dtype, named))
    states = {"base": base} | {name: fine_tune(base, seed + i) for i, name in enumerate(recipe.experts, start=1)}
    assert_equals_mergekits(recipe, states, Small(seed, torch.float32, named))


def assert_equals_mergekits(recipe: Recipe, states: dict[str, State], live: Small) -> None:
    pool = MergePool(live, "base", states["base"])
    for name in recipe.experts:
        pool.add_expert(name, states[name])
    pool.apply(recipe)
    expected = by_mergekit(recipe, states)
    for name, merged in pool.live.state_dict().items():
        allowed = tolerance(recipe, states, name)
        assert torch.allclose(merged, expected[name], rtol=0, atol=allowed), (name, merged, expected[name], allowed)


def tolerance(recipe: Recipe, states: Mapping[str, State], name: str) -> float:
    """Largest difference from mergekit that rounding explains."""
    tensors = [states[model][name].double() for model in (recipe.base, *recipe.experts)]
    sizes = [float(tensor.abs().max()) for tensor in tensors]
    if recipe.method == "linear":
        return 4 * len(sizes) * EPSILON * (sum(sizes) + sizes[0] * len(sizes))
    if recipe.method == "slerp":
        return slerp_tolerance(recipe.weights[0], tensors[0].reshape(-1), tensors[1].reshape(-1), sum(sizes))
    return 0.0


def slerp_tolerance(t: float, base: Tensor, expert: Tensor, size: float) -> float:
    lengths = [float(vector.norm()) or 1.0 for vector in (base, expert)]
    cosine = float(base @ expert) / (lengths[0] * lengths[1])
    assume(abs(abs(cosine) - 0.9995) > 1e-5)  # next to it float32 may put mergekit on the other side
    if abs(cosine) > 0.9995:
        return 4 * EPSILON * size
    angle, sine = math.acos(cosine), math.sqrt(1 - cosine * cosine)
    angle_error = 4 * EPSILON * (1 / sine + angle)
    shares = [(math.sin(s * angle) / sine, s) for s in (t, 1 - t)]
    slope = max(abs(s * math.cos(s * angle) - share * cosine) / sine for share, s in shares)
    return size * (slope * angle_error + 4 * EPSILON * max(share for share, _ in shares))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    t=st.floats(0.0, 1.0),
    shapes=st.lists(shape, min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 1000),
    turn=st.sampled_from([0.03, 0.1, 1.0, 10.0]),
)
def test_slerp_equals_mergekits_at_any_angle(
    t: float, shapes: list[tuple[int, ...]], dtype: torch.dtype, seed: int, turn: float
) -> None:
    named = {f"t{i}": shape for i, shape in enumerate(shapes)}
    base, noise = (state_of(Small(s, torch.float32, named)) for s in (seed, seed + 1))
    states = {
        "base": {name: tensor.to(dtype) for name, tensor in base.items()},
        "a": {name: (tensor + turn * noise[name]).to(dtype) for name, tensor in base.items()},
    }
    recipe = Recipe(method="slerp", base="base", experts=("a",), weights=(t,))
    assert_equals_mergekits(recipe, states, Small(seed, torch.float32, named))


def test_of_equal_magnitudes_as_many_and_as_large_ones_are_kept_as_by_mergekit() -> None:
    base = state_of(Small(0))
    steps = torch.randint(-4, 5, (12, 19), generator=torch.Generator().manual_seed(3)) / 8
    states = {"base": base, "a": {**base, "matrix": base["matrix"] + steps}}
    recipe = Recipe(method="ties", base="base", experts=("a",), weights=(1.0,), densities=(0.3,))
    pool = pool_of({"a": states["a"]})
    pool.apply(recipe)
    ours = (pool.live.matrix - base["matrix"]).abs().flatten().sort().values
    theirs = (by_mergekit(recipe, states)["matrix"] - base["matrix"]).abs().flatten().sort().values
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear", "task_arithmetic"])
def test_weights_that_cancel_give_what_mergekit_gives(method: str) -> None:
    base = state_of(Small(0))
    states = {"base": base, "a": fine_tune(base, 1)}
    states["b"] = states["a"]
    densities = (1.0, 1.0) if merge_methods.METHODS[method].has_densities else None
    recipe = Recipe(method=method, base="base", experts=("a", "b"), weights=(0.7, -0.7), densities=densities)
    pool = pool_of({"a": states["a"], "b": states["b"]})
    pool.apply(recipe)
    expected = by_mergekit(recipe, states)
    for name, merged in pool.live.state_dict().items():
        assert torch.equal(merged, expected[name])
        assert method.endswith("ties") or torch.equal(merged, base[name])


@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
@pytest.mark.parametrize("others", [(), (1e-300,)])
def test_weights_beyond_float32_give_what_mergekit_gives(method: str, others: tuple[float, ...]) -> None:
    base = state_of(Small(0))
    names = EXPERTS[: 1 + len(others)]
    states = {"base": base} | {name: fine_tune(base, seed) for seed, name in enumerate(names, start=1)}
    recipe = Recipe(
        method=method,
        base="base",
        experts=names,
        weights=(1e-300, *others),
        densities=(0.5,) * len(names) if method == "ties" else None,
        parameters={"normalize": True},
    )
    assert_equals_mergekits(recipe, states, Small(0))
