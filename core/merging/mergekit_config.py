"""Converts a recipe to mergekit's configuration, which `mergekit-yaml` merges to the same weights.

A recipe with one set of parameters lists models. Scopes become mergekit's filters; where they name blocks, each range
of blocks with the same parameters is a slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from core.contracts.merge_methods import METHODS, takes_base
from core.merging.recipes import Recipe, effective_weights
from core.merging.rivals.sums import as_sum

if TYPE_CHECKING:
    from mergekit.config import MergeConfiguration

Parameters = dict[str, Any]


def to_mergekit(
    recipe: Recipe,
    out_dtype: str = "bfloat16",
    names: Mapping[str, str] | None = None,
    tokenizer_source: str | None = None,
) -> MergeConfiguration:
    """The same merge as mergekit's configuration, computed in float32.

    A method that mergekit lacks is written as a sum of whole models where it is one; else under its own name, which
    mergekit refuses. Methods that draw random numbers differ in those: mergekit draws from its process's global random
    state. Unless the recipe sets `rescale`, DARE's rescaling is switched off and each weight is divided by its density
    instead, because mergekit 0.1 would restore each tensor's L1 norm, where DARE (arXiv 2311.03099) divides by the
    density.

    Args:
        recipe: what is merged.
        out_dtype: number format of the written weights.
        names: mergekit's name of each reference that it does not know, such as `demo/NAME`; others stay as they are.
        tokenizer_source: model whose vocabulary the merge has; None where all have the same.
    """
    from mergekit.config import MergeConfiguration

    if recipe.info.own and recipe.in_mergekit:
        recipe = as_sum(recipe)
    names = names or {}
    models = [names.get(name, name) for name in (recipe.base, *recipe.experts)]
    written: dict[str, Any] = {"merge_method": recipe.method, "dtype": "float32", "out_dtype": out_dtype}
    if tokenizer_source is not None:
        written["tokenizer_source"] = names.get(tokenizer_source, tokenizer_source)
    if takes_base(recipe.method, len(recipe.experts)):
        written["base_model"] = models[0]
    if not METHODS[recipe.method].fast:
        written |= _mergekit_method(recipe, models)
    else:
        sliced = any(scope.blocks is not None for scope in recipe.scopes)
        written |= _slices(recipe, models) if sliced else _models(recipe, models)
    return MergeConfiguration.model_validate(written)


def _mergekit_method(recipe: Recipe, models: Sequence[str]) -> dict[str, Any]:
    """Models and parameters of a method without a fast path: one number for all models, or one for each."""
    names = models[1:] if takes_base(recipe.method, len(recipe.experts)) else models
    own: list[Parameters] = [{} for _ in names]
    shared: Parameters = {}
    lists = {"weight": recipe.weights, "density": recipe.densities or ()}
    for name, value in (*lists.items(), *recipe.parameters):
        if isinstance(value, tuple):
            for values, one in zip(own, value, strict=False):
                values[name] = one
        else:
            shared[name] = value
    listed = zip(names, own, strict=True)
    entries = [{"model": name} | ({"parameters": part} if part else {}) for name, part in listed]
    return {"models": entries, "parameters": shared}


def _models(recipe: Recipe, models: Sequence[str]) -> dict[str, Any]:
    info = METHODS[recipe.method]
    parameters = _parameters(recipe, block=0)
    listed = zip(models, parameters.by_model, strict=True)
    entries = [{"model": name} | ({"parameters": own} if own else {}) for name, own in listed]
    adds_base = not (info.merges_base or info.interpolates)  # mergekit adds the base itself
    return {"models": entries[1:] if adds_base else entries, "parameters": parameters.shared}


def _slices(recipe: Recipe, models: Sequence[str]) -> dict[str, Any]:
    fixed = {name: value for name, value in _parameters(recipe, block=0).shared.items() if name != "t"}
    slices = []
    for parameters, run in groupby(range(recipe.blocks), lambda block: _parameters(recipe, block)):
        blocks = list(run)
        span = [blocks[0], blocks[-1] + 1]
        sources = [
            {"model": name, "layer_range": span} | ({"parameters": own} if own else {})
            for name, own in zip(models, parameters.by_model, strict=True)
        ]
        t = {"t": parameters.shared["t"]} if "t" in parameters.shared else {}
        slices.append({"sources": sources} | ({"parameters": t} if t else {}))
    return {"slices": slices} | ({"parameters": fixed} if fixed else {})


class _Parameters(NamedTuple):
    """mergekit's parameters of a block's tensors: of each model, the base first, and of all together."""

    by_model: list[Parameters]
    shared: Parameters


def _parameters(recipe: Recipe, block: int) -> _Parameters:
    """mergekit's parameters of one block and the tensors that belong to it; with filters where parts differ."""
    scopes = [scope for scope in recipe.scopes if scope.holds_block(block)]
    parts = [(scope.filter, _plain(recipe.inside(scope))) for scope in scopes]
    if not any(filter_ is None for filter_, _ in parts):
        parts.append((None, _plain(recipe)))
    own = [
        {name: _setting([(filter_, part.by_model[number][name]) for filter_, part in parts]) for name in first}
        for number, first in enumerate(parts[0][1].by_model)
    ]
    shared = dict(parts[0][1].shared)
    if "t" in shared:
        shared["t"] = _setting([(filter_, part.shared["t"]) for filter_, part in parts])
    return _Parameters(own, shared)


def _setting(values: list[tuple[str | None, float]]) -> Any:
    """A plain number, or mergekit's list of values by filter, of which the first that fits the tensor's name counts."""
    if len(values) == 1:
        return values[0][1]
    return [{"value": value} | ({"filter": filter_} if filter_ is not None else {}) for filter_, value in values]


def _plain(recipe: Recipe) -> _Parameters:
    """mergekit's parameters of a recipe without scopes."""
    info = METHODS[recipe.method]
    if info.interpolates:
        return _Parameters([{}, {}], {"t": recipe.weights[0]})
    if info.merges_base:
        return _Parameters([{"weight": weight} for weight in recipe.weights], {"normalize": True})
    densities = recipe.densities or (None,) * len(recipe.experts)
    own = [
        {"weight": weight} if density is None else {"weight": weight, "density": density}
        for weight, density in zip(effective_weights(recipe), densities, strict=True)
    ]
    shared = {"normalize": recipe.normalize and info.elects_signs, "lambda": 1.0}
    shared |= {"rescale": False} if recipe.drops_at_random else {}
    return _Parameters([{}, *own], shared | dict(recipe.parameters))
