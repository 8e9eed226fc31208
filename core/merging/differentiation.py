"""Derivatives of a loss by a recipe's weights and densities, from the gradient of each merged tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from core.merging.derivatives import (
    contract_between,
    contract_sum,
    contracted,
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


class Contraction(NamedTuple):
    """A tensor's gradient contracted with the derivatives of its merge, on the gradient's device.

    Attributes:
        sums: (m,) float64; contractions of several gradients of the same recipe are added.
        derivatives: from the values of `sums` to dL/dx of each weight of the recipe, then of each density.
    """

    sums: Tensor
    derivatives: Callable[[list[float]], list[float]]


def recipe_derivatives(
    pool: MergePool, key: str, recipe: Recipe, gradient: Tensor, *, densities: bool, fixed_signs: bool = False
) -> list[float]:
    """dL/dx of each weight of a tensor's recipe, then of each density; the arguments are those of `contract_recipe`."""
    found = contract_recipe(pool, key, recipe, gradient, densities=densities, fixed_signs=fixed_signs)
    return found.derivatives(found.sums.tolist())


def contract_recipe(
    pool: MergePool, key: str, recipe: Recipe, gradient: Tensor, *, densities: bool, fixed_signs: bool = False
) -> Contraction:
    """Contract a tensor's gradient, without waiting for the device.

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
        slopes = factor_derivatives(arc.angle, recipe.weights[0])
        return Contraction(contract_between(gradient, arc.base, arc.delta, slopes).reshape(1), list)
    parts = pool.parts(key, recipe)
    names, rule, weights = tuple(parts.names), parts.rule, [term.weight for term in parts.terms]
    if recipe.info.elects_signs and len(names) > 1 and not fixed_signs:
        numbered = enumerate(recipe.experts)
        sums = torch.stack([_weight_difference(pool, key, recipe, gradient, name in names, i) for i, name in numbered])
        finish: Callable[[list[float]], list[float]] = list
    else:
        sums = contract_sum(gradient, parts.terms, rule)

        def finish(values: list[float]) -> list[float]:
            return weight_derivatives(recipe, contracted(values, weights, rule), names)

    if not recipe.densities:
        return Contraction(sums, finish)
    own = [name if densities and name in names else None for name in recipe.experts]
    moved = [
        _zero(gradient) if name is None else _density_derivative(pool, key, recipe, gradient, number)
        for number, name in enumerate(own)
    ]
    count = len(sums)
    return Contraction(torch.cat([sums, torch.stack(moved)]), lambda values: finish(values[:count]) + values[count:])


def _zero(gradient: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.float64, device=gradient.device)


def _weight_difference(
    pool: MergePool, key: str, recipe: Recipe, gradient: Tensor, changes: bool, number: int
) -> Tensor:
    """dL/d(weight) of one expert, by the difference of two merges of the tensor; 0 where it does not change it."""
    if not changes:
        return _zero(gradient)
    weights, sides = recipe.weights, (SIGN_STEP, -SIGN_STEP)
    moved = [(*weights[:number], weights[number] + side, *weights[number + 1 :]) for side in sides]
    recipes = [recipe.model_copy(update={"weights": one}) for one in moved]
    return merge_difference(pool, key, recipes, gradient, 2 * SIGN_STEP)


def _density_derivative(pool: MergePool, key: str, recipe: Recipe, gradient: Tensor, number: int) -> Tensor:
    """dL/d(density) of one expert, by the difference of two merges of the tensor."""
    values = list(recipe.densities or ())
    low, high = values[number] * (1 - DENSITY_STEP), min(1.0, values[number] * (1 + DENSITY_STEP))
    moved = [
        recipe.model_copy(update={"densities": (*values[:number], density, *values[number + 1 :])})
        for density in (high, low)
    ]
    return merge_difference(pool, key, moved, gradient, high - low)


def merge_difference(pool: MergePool, key: str, recipes: Sequence[Recipe], gradient: Tensor, distance: float) -> Tensor:
    """<g, (W(above) - W(below)) / distance> for the two recipes of a tensor, without scopes."""
    with torch.no_grad():
        above, below = (pool.merged_tensor(key, recipe) for recipe in recipes)
        return difference(gradient, above, below, distance)
