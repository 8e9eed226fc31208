"""Derivatives of a loss by a recipe's weights and densities, from the gradient of each merged tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.merging.derivatives import (
    contract_between,
    contract_sum,
    difference,
    factor_derivatives,
    weight_derivatives,
)
from core.merging.engine import MergePool
from core.merging.recipes import Recipe

DENSITY_STEP = 0.05
"""Share of a density by which it is moved up and down; TIES's mask moves in whole entries."""
SIGN_STEP = 0.03
"""Distance by which a weight is moved up and down where several experts elect signs."""


def recipe_derivatives(
    pool: MergePool, key: str, recipe: Recipe, gradient: Tensor, *, densities: bool, fixed_signs: bool = False
) -> list[float]:
    """dL/dx of each weight of a tensor's recipe, then of each density.

    Where several experts elect signs (TIES), entries change sides as the weights change, each with a jump. The jumps
    count in the derivative of the loss, more than the rest where the experts disagree, so a difference of two merges
    that holds them replaces the closed form.

    Args:
        pool: the models.
        key: name of a tensor in which an expert of the recipe differs from the base.
        recipe: of the tensor, without scopes; of a method with a fast path.
        gradient: dL/dW of the merged tensor, in any float format.
        densities: False gives each density 0 without computing it.
        fixed_signs: use the closed form with the signs that are elected now.
    """
    if recipe.info.interpolates:
        arc = pool.arc(key, recipe.experts[0])
        return [contract_between(gradient, arc.base, arc.delta, factor_derivatives(arc.angle, recipe.weights[0]))]
    parts = pool.parts(key, recipe)
    if recipe.info.elects_signs and len(parts.names) > 1 and not fixed_signs:
        values = [
            _weight_difference(pool, key, recipe, gradient, name in parts.names, i) for i, name in _numbered(recipe)
        ]
    else:
        values = weight_derivatives(recipe, contract_sum(gradient, parts.terms, parts.rule), parts.names)
    for number, name in enumerate(recipe.experts if recipe.densities else ()):
        counts = densities and name in parts.names
        values.append(_density_derivative(pool, key, recipe, gradient, number) if counts else 0.0)
    return values


def _numbered(recipe: Recipe) -> list[tuple[int, str]]:
    return list(enumerate(recipe.experts))


def _weight_difference(
    pool: MergePool, key: str, recipe: Recipe, gradient: Tensor, changes: bool, number: int
) -> float:
    """dL/d(weight) of one expert, by the difference of two merges of the tensor; 0 where it does not change it."""
    if not changes:
        return 0.0
    weights, sides = recipe.weights, (SIGN_STEP, -SIGN_STEP)
    moved = [(*weights[:number], weights[number] + side, *weights[number + 1 :]) for side in sides]
    recipes = [recipe.model_copy(update={"weights": one}) for one in moved]
    return merge_difference(pool, key, recipes, gradient, 2 * SIGN_STEP)


def _density_derivative(pool: MergePool, key: str, recipe: Recipe, gradient: Tensor, number: int) -> float:
    """dL/d(density) of one expert, by the difference of two merges of the tensor."""
    values = list(recipe.densities or ())
    low, high = values[number] * (1 - DENSITY_STEP), min(1.0, values[number] * (1 + DENSITY_STEP))
    moved = [
        recipe.model_copy(update={"densities": (*values[:number], density, *values[number + 1 :])})
        for density in (high, low)
    ]
    return merge_difference(pool, key, moved, gradient, high - low)


def merge_difference(pool: MergePool, key: str, recipes: Sequence[Recipe], gradient: Tensor, distance: float) -> float:
    """<g, (W(above) - W(below)) / distance> for the two recipes of a tensor, without scopes."""
    with torch.no_grad():
        above, below = (pool.merged_tensor(key, recipe) for recipe in recipes)
        return difference(gradient, above, below, distance)
