"""Methods that treat each weight by its importance to the training pairs: LED-Merging.

A rule prepares the merge of a recipe and returns the function that merges its layers. Arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import torch
from torch import Tensor

from core.merging.recipes import Recipe
from core.merging.rivals.importance import ElectionRanks, MergeLayer
from core.merging.rivals.similarity import Layer


def led(recipe: Recipe, ranks: ElectionRanks, _tensors: Collection[str], _layer: Callable[[str], Layer]) -> MergeLayer:
    """theta_ancestor + scale * sum_i m_i tau_i (LED-Merging, arXiv 2502.16770).

    Locate: the score of a weight is E|theta dL/dtheta| over the pairs of task i, L = -log p(answer | question).
    Elect: weights of tau_i whose scores are in the first `safety_ratio` (aligned model) or `expert_ratio` (experts) of
    their tensor in both the ancestor and model i. Disjoint: m_i are the elected weights that no other model elects.

    Args:
        recipe: its base is the ancestor, the first of its experts the aligned model.
        ranks: of the scores.
    """
    return partial(_led_layer, recipe, ranks)


def _led_layer(recipe: Recipe, ranks: ElectionRanks, key: str, base: Tensor, deltas: Mapping[str, Tensor]) -> Tensor:
    """The merged tensor; models without a task vector in it elect nothing there."""
    aligned = recipe.experts[0]
    ratios = {name: "safety_ratio" if name == aligned else "expert_ratio" for name in recipe.experts if name in deltas}
    found = {name: ranks.elected(name, key, recipe.number(ratio)) for name, ratio in ratios.items()}
    elected = {name: chosen for name, chosen in found.items() if chosen is not None}
    merged = base.to(torch.float32, copy=True)
    if not elected:
        return merged
    alone = torch.stack(list(elected.values())).sum(0) == 1
    for name, chosen in elected.items():
        merged += torch.where(chosen & alone, deltas[name], 0.0).mul_(recipe.number("scale"))
    return merged
