"""Methods that add whole models with constant factors, as recipes of the fast path, which mergekit can repeat.

With several experts, their mean stands for the one fine-tuned model of the papers.
"""

from __future__ import annotations

from typing import cast

from core.contracts.merge_methods import DARE, LINEAR, TASK_ARITHMETIC
from core.merging.recipes import Recipe
from core.merging.rivals.rules import rule_of

_MASK_VERSION = 2  # fixed, so that a recipe of RESTA always gives the same weights


def as_sum(recipe: Recipe) -> Recipe:
    """The recipe of the fast path that makes the same merge.

    Args:
        recipe: of a method whose row has `adds_models`. Except for `interpolation`, its base is the ancestor and the
            first of its experts the aligned model.
    """
    return cast(Recipe, rule_of(recipe)(recipe))


def interpolation(recipe: Recipe) -> Recipe:
    """theta = (1 - t) theta_aligned + t theta_expert (arXiv 2412.19512)."""
    t, experts = recipe.number("t"), recipe.experts
    return _recipe(recipe, LINEAR, (1.0 - t, *(t / len(experts),) * len(experts)))


def mergealign(recipe: Recipe) -> Recipe:
    """theta_ancestor + domain_weight * tau_expert + alignment_weight * tau_aligned (MergeAlign, arXiv 2411.06824).

    With weights that add up to 1, as published (1/2 each), the ancestor cancels out, which leaves an interpolation.
    """
    domain = recipe.number("domain_weight")
    return _recipe(recipe, TASK_ARITHMETIC, (recipe.number("alignment_weight"), *_mean(recipe, domain)))


def resta(recipe: Recipe) -> Recipe:
    """theta = theta_expert + safety_weight * (theta_aligned - theta_ancestor) (RESTA, arXiv 2402.11746).

    With `drop_rate`, DARE drops that share of the safety vector's entries and rescales the others.
    """
    weights, drop_rate = (recipe.number("safety_weight"), *_mean(recipe, 1.0)), recipe.number("drop_rate")
    if not drop_rate:
        return _recipe(recipe, TASK_ARITHMETIC, weights)
    return Recipe(
        method=DARE,
        base=recipe.base,
        experts=recipe.experts,
        weights=weights,
        densities=(1.0 - drop_rate, *(1.0,) * (len(recipe.experts) - 1)),
        seed=recipe.seed,
        mask_version=_MASK_VERSION,
    )


def _mean(recipe: Recipe, weight: float) -> tuple[float, ...]:
    """The weight of each model after the aligned one, whose mean has `weight`."""
    count = len(recipe.experts) - 1
    return (weight / count,) * count


def _recipe(recipe: Recipe, method: str, weights: tuple[float, ...]) -> Recipe:
    return Recipe(method=method, base=recipe.base, experts=recipe.experts, weights=weights)
