"""Derivatives of one tensor's merge with respect to its recipe's weights, contracted with a gradient piece by piece.

With g = dL/dW of a merged tensor W, each function returns dL/dw = <g, dW/dw>. Trim and DARE masks are constant, and so
is the sign that TIES elects: the merge is differentiable wherever no entry changes sides. Where a merge has no closed
derivative (densities, methods of mergekit's own code), `difference` gives <g, (W(x + e) - W(x - e)) / 2e>: it is exact
in the loss and differences only the merge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from core.contracts.merge_methods import METHODS
from core.merging.arithmetic import SumRule, Term, agreeing_weight, combine, piece_entries
from core.merging.recipes import Recipe
from core.merging.slerp import Factors
from core.merging.storage import Delta

NO_SUM = 1e-8
"""Weights whose sum is smaller are not normalized (mergekit's limit)."""


class Contracted(NamedTuple):
    """What a sum's derivatives are made of.

    Attributes:
        by_term: <g, dM/de_t> for the effective weight e_t of each term, in the order of the terms.
        merged: <g, M>, M the merged task vector.
    """

    by_term: list[float]
    merged: float


def contract_sum(gradient: Tensor, terms: Sequence[Term], rule: SumRule) -> Tensor:
    """Contract a gradient with the derivatives of `core.merging.arithmetic.write_sum`, without waiting for the device.

    Args:
        gradient: (n,) dL/dW of the merged tensor.
        terms: the weighted task vectors; an expert whose tensor equals the base's has none.
        rule: how they are combined; the sum of all weights in it is held constant (`weight_derivatives`).

    Returns:
        (T + 1,) float64 sums that `contracted` reads; those of several gradients may be added first. A TIES weight of 0
        has the derivative towards positive weights.
    """
    flat, size = gradient.reshape(-1), piece_entries(gradient.device.type)
    sums = torch.zeros(len(terms) + 1, dtype=torch.float64, device=flat.device)
    for start in range(0, flat.numel(), size):
        piece = slice(start, start + size)
        g = flat[piece].float()
        kept = [term.delta.piece(piece) if term.keep is None else term.keep(term.delta.piece(piece)) for term in terms]
        weights = [term.weight for term in terms]
        if not rule.elect_signs:  # <g, M> follows from the terms: M is linear in them
            sums[:-1] += torch.stack([_dot(g, values) for values in kept])
            continue
        weighted = [values * weight for values, weight in zip(kept, weights, strict=True)]
        merged = combine(weighted, weights, rule)
        for number, part in enumerate(_parts(kept, weighted, weights, merged, rule)):
            sums[number] += _dot(g, part)
        sums[-1] += _dot(g, merged)
    return sums


def contracted(sums: Sequence[float], weights: Sequence[float], rule: SumRule) -> Contracted:
    """What `contract_sum` found, for terms of these weights."""
    *by_term, whole = (value * rule.factor for value in sums)
    if not rule.elect_signs:
        total = rule.total if rule.normalize else 1.0
        by_term = [value / total for value in by_term]
        whole = sum(weight * value for weight, value in zip(weights, by_term, strict=True))
    return Contracted(by_term, whole)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """<left, right> of one piece in float32, the fastest; pieces are added in float64."""
    return torch.dot(left, right).double()


def _parts(
    kept: Sequence[Tensor], weighted: Sequence[Tensor], weights: Sequence[float], merged: Tensor, rule: SumRule
) -> list[Tensor]:
    """dM/de_t of each term, on one piece, where signs are elected."""
    if len(kept) == 1:
        return [torch.zeros_like(kept[0]) if rule.normalize and weights[0] else kept[0]]
    total = torch.stack(list(weighted)).sum(0)
    majority = torch.where(total >= 0, 1.0, -1.0)
    agreeing = [_agrees(values, weight, majority, total) for values, weight in zip(kept, weights, strict=True)]
    if not rule.normalize:
        return [values * agrees for values, agrees in zip(kept, agreeing, strict=True)]
    shared = agreeing_weight(weighted, weights, majority)
    return [(values - merged) * agrees / shared for values, agrees in zip(kept, agreeing, strict=True)]


def _agrees(values: Tensor, weight: float, majority: Tensor, total: Tensor) -> Tensor:
    """1 where a term's entries agree with the elected sign; a weight of 0 wins where no other entry has a sign."""
    agrees = values * majority > 0 if weight >= 0 else values * majority < 0
    return (agrees | (total == 0) if weight == 0 else agrees).float()


def weight_derivatives(recipe: Recipe, contracted: Contracted, names: Sequence[str]) -> list[float]:
    """dL/dw of every weight of a recipe of task vectors, in its order.

    Args:
        recipe: of the tensor, without scopes.
        contracted: with the terms' effective weights (`core.merging.recipes.task_weights`).
        names: the expert of each term.
    """
    by_expert = dict.fromkeys(recipe.experts, 0.0) | dict(zip(names, contracted.by_term, strict=True))
    if METHODS[recipe.method].merges_base:  # w_t / sum(w): the quotient rule
        total = sum(recipe.weights)
        experts = [(by_expert[name] - contracted.merged) / total for name in recipe.experts]
        return [-contracted.merged / total, *experts]
    densities = recipe.densities if recipe.drops_at_random and recipe.densities else (1.0,) * len(recipe.experts)
    values = [by_expert[name] / density for name, density in zip(recipe.experts, densities, strict=True)]
    total = sum(recipe.weights)
    if recipe.info.elects_signs or abs(total) < NO_SUM:
        return values
    if recipe.normalize:
        return [(value - contracted.merged) / total for value in values]
    if recipe.option("normalize", False):
        return [value - contracted.merged / total for value in values]
    return values


def factor_derivatives(angle: float | None, t: float) -> Factors:
    """Derivatives in t of SLERP's two factors (`core.merging.slerp.factors`)."""
    if angle is None:
        return Factors(-1.0, 1.0)
    return Factors(
        -angle * math.cos((1.0 - t) * angle) / math.sin(angle), angle * math.cos(t * angle) / math.sin(angle)
    )


def contract_between(gradient: Tensor, base: Tensor, delta: Delta, slopes: Factors) -> Tensor:
    """dL/dt of SLERP, float64 on the device: <g, base> and <g, expert>, weighted by the slopes of their factors."""
    flat, flat_base, size = gradient.reshape(-1), base.reshape(-1), piece_entries(gradient.device.type)
    total = torch.zeros((), dtype=torch.float64, device=flat.device)
    for start in range(0, flat.numel(), size):
        piece = slice(start, start + size)
        near = flat_base[piece].float()
        total += _dot(flat[piece].float(), near * slopes.base + (near + delta.piece(piece)) * slopes.expert)
    return total


def difference(gradient: Tensor, above: Tensor, below: Tensor, distance: float) -> Tensor:
    """<g, (W(x + e) - W(x - e)) / 2e>, float64 on the device.

    Args:
        gradient: dL/dW.
        above: W(x + e), float32.
        below: W(x - e), float32.
        distance: 2e; smaller where a bound cuts a side off.
    """
    return _dot(gradient.reshape(-1).float(), (above - below).reshape(-1)) / distance
