"""Methods that treat each weight by its importance to the training pairs: LED-Merging and AlignMerge.

A rule prepares the merge of a recipe and returns the function that merges its layers. Arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from core.merging.recipes import Recipe
from core.merging.rivals.importance import ElectionRanks, FisherDiagonal, MergeLayer, Spectrum, mean_difference
from core.merging.rivals.similarity import Layer

_BISECTIONS = 100
"""More than the bits of a float64."""


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


class Pull(NamedTuple):
    """How far AlignMerge pulls each weight back to the aligned model.

    Attributes:
        threshold: place of the alignment subspace's smallest Fisher value among those of bfloat16.
        everywhere: mu, the pull of the budget on all weights.
        inside: the pull on weights in the alignment subspace, in addition.
    """

    threshold: int
    everywhere: float
    inside: float


def alignmerge(
    recipe: Recipe, fisher: FisherDiagonal, tensors: Collection[str], layer: Callable[[str], Layer]
) -> MergeLayer:
    """theta_aligned + delta with the delta that minimizes AlignMerge's objective (arXiv 2512.16245):

        sum_k lambda_k ||delta - Delta_k||_G^2 + lambda_align ||P_A delta||_G^2 + lambda_bud B(delta)

    Delta_k = theta_k - theta_aligned with equal lambda_k that add up to 1; G is the diagonal Fisher matrix of the
    aligned model on the safety pairs. With a diagonal G its eigenvectors are the weights, so that the alignment
    subspace P_A, the first eigenvectors, is the `subspace_share` of the weights with the largest G. The paper's budget
    is on AQI, which needs harmful answers; here it is on D(delta) = ||delta||_G^2, twice the rise of the safety loss
    that the Fisher matrix predicts: with the mean difference d, B = D(d) max(0, D(delta) / D(d) - budget)^2. The
    minimum is exact: see `pull_of`.

    Args:
        recipe: its base is the aligned model.
        fisher: the diagonal of G.
        tensors: names of the tensors in which an expert differs from the aligned model.
        layer: fetches a tensor's values.
    """
    pull = pull_of(recipe, fisher.spectrum(recipe.base, recipe.experts, tensors, layer))
    return partial(_alignmerge_layer, recipe, fisher, pull)


def _alignmerge_layer(
    recipe: Recipe, fisher: FisherDiagonal, pull: Pull, key: str, base: Tensor, deltas: Mapping[str, Tensor]
) -> Tensor:
    """The merged tensor: the mean difference of the experts, divided by 1 + the pull on each weight."""
    merged, values = mean_difference(base, deltas, recipe.experts), fisher.values(recipe.base, key)
    divisor = torch.full_like(merged, 1.0 + pull.everywhere)
    if values is not None:
        divisor += torch.where(values.view(torch.int16) >= pull.threshold, pull.inside, 0.0)
    return merged.div_(divisor).add_(base)


def pull_of(recipe: Recipe, spectrum: Spectrum) -> Pull:
    """The pulls at the minimum of AlignMerge's objective.

    The derivative is zero at delta = d / (1 + lambda_align P_A + mu) for mu = 2 lambda_bud max(0, D(delta) / D(d) -
    budget). D falls as mu grows, so that one mu solves this; bisection finds it.

    Args:
        recipe: with the parameters.
        spectrum: of the pool.
    """
    above = spectrum.counts.flip(0).cumsum(0).flip(0)
    allowed = recipe.number("subspace_share") * int(above[0])
    threshold = int((above > allowed).sum())
    total, alignment = float(spectrum.energy.sum()), recipe.number("alignment_weight")
    inside = float(spectrum.energy[threshold:].sum()) / total if total else 0.0

    def wanted(mu: float) -> float:
        rise = (1 - inside) / (1 + mu) ** 2 + inside / (1 + alignment + mu) ** 2
        return 2 * recipe.number("budget_weight") * max(0.0, rise - recipe.number("budget"))

    low, high = 0.0, wanted(0.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if wanted(middle) > middle else (low, middle)
    return Pull(threshold, high, alignment)
