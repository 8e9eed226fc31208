"""Methods that treat each layer by its similarity with the alignment: Safe LoRA, SafeMERGE and LATA.

A rule returns what a layer's update adds to the aligned model. With several experts the mean of their updates is added.
Arithmetic is float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from core.merging.recipes import Recipe
from core.merging.rivals.rules import rule_of
from core.merging.rivals.similarity import Similarity, project


class Update(NamedTuple):
    """One layer of one expert; all tensors have its shape."""

    key: str
    task_vector: Tensor
    alignment: Tensor
    similarity: Similarity


Rule = Callable[[Recipe, Update], Tensor]


def merge_layer(
    recipe: Recipe, key: str, base: Tensor, deltas: Mapping[str, Tensor], similarities: Mapping[str, Similarity]
) -> Tensor:
    """The merged tensor, float32.

    Args:
        recipe: of a method whose row has a `similarity`; its base is the ancestor, the first of its experts the aligned
            model.
        key: name of the tensor.
        base: the ancestor's.
        deltas: task vectors from the ancestor, of its shape, float32; a missing model has the ancestor's tensor.
        similarities: of each other expert's layers (`Similarities.of`).
    """
    rule: Rule = rule_of(recipe)
    origin, (aligned, *experts) = base.float(), recipe.experts
    zero = torch.zeros_like(origin)
    alignment = deltas.get(aligned, zero)
    total = torch.zeros_like(origin)
    for name in experts:
        total += rule(recipe, Update(key, deltas.get(name, zero), alignment, similarities[name]))
    return total.div_(len(experts)).add_(alignment).add_(origin)


def safe_lora(recipe: Recipe, update: Update) -> Tensor:
    """C dW where the layer's cosine is below the threshold, else dW (Safe LoRA, arXiv 2405.16833).

    With `projected_layers` = k, the k layers of the lowest cosines are projected instead. dW = theta_expert -
    theta_aligned. Vectors, and layers that the alignment did not change, keep dW.
    """
    change = update.task_vector - update.alignment
    return project(change, update.alignment) if _is_unsafe(recipe, update) else change


def _is_unsafe(recipe: Recipe, update: Update) -> bool:
    """Whether Safe LoRA projects a layer."""
    if update.key not in update.similarity:
        return False
    count = int(recipe.number("projected_layers"))
    if not count:
        return update.similarity[update.key] < recipe.number("threshold")
    return update.key in sorted(update.similarity, key=lambda key: (update.similarity[key], key))[:count]


def safemerge(recipe: Recipe, update: Update) -> Tensor:
    """(1 - safety_share) dW where the layer's cosine is below the threshold, else dW (SafeMERGE, arXiv 2503.17239).

    This is the method of Djuhera et al., not this product. The paper merges such a layer with that of a safety-tuned
    model: 0.8 dW_expert + 0.2 dW_safe. The pool's safety model is the aligned base itself, so dW_safe is zero.
    """
    change = update.task_vector - update.alignment
    cosine = update.similarity.get(update.key)
    unsafe = cosine is not None and cosine < recipe.number("threshold")
    return change * (1.0 - recipe.number("safety_share")) if unsafe else change


def lata(recipe: Recipe, update: Update) -> Tensor:
    """scale * w_l * tau, less for a layer that resembles the alignment (Layer-Aware Task Arithmetic, arXiv 2502.20186).

    tau = theta_expert - theta_ancestor is compared with the instruction vector theta_aligned - theta_ancestor by its
    cosine. w_l is 0 above `threshold`. Else, with `by_rank`, it is p / L for the layer at position p of L from the most
    similar one, or log(1 + p) / log(1 + L) with `logarithmic`.
    """
    if update.key not in update.similarity:
        return torch.zeros_like(update.task_vector)
    return update.task_vector * (recipe.number("scale") * layer_weight(recipe, update.key, update.similarity))


def layer_weight(recipe: Recipe, key: str, similarity: Similarity) -> float:
    """w_l of Layer-Aware Task Arithmetic, in [0, 1]."""
    if similarity[key] > recipe.number("threshold"):
        return 0.0
    if not recipe.option("by_rank", True):
        return 1.0
    position = 1 + sum((-value, name) < (-similarity[key], key) for name, value in similarity.items())
    if recipe.option("logarithmic", False):
        return math.log(1 + position) / math.log(1 + len(similarity))
    return position / len(similarity)
