"""The arithmetic of one tensor's merge: sums of weighted task vectors, and SLERP's two factors, piece by piece.

The arithmetic is float32 whatever the live model's dtype. A callable over the pieces of a task vector drops entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from core.contracts.merge_methods import METHODS
from core.merging.recipes import Recipe
from core.merging.slerp import Factors
from core.merging.storage import Delta

Keep = Callable[[Tensor], Tensor]
"""Takes a task vector's next piece and returns it with the dropped entries zeroed."""
_PIECE = 1 << 19  # a multiple of four, which DARE's masks need
_GPU_PIECE = 1 << 24  # few large steps are faster on a GPU
_NO_SUM = 1e-8  # mergekit's: weights that add up to less are not normalized


def piece_entries(device_type: str) -> int:
    """Number of entries merged at a time; on a processor they fit its cache."""
    return _GPU_PIECE if device_type == "cuda" else _PIECE


class SumRule(NamedTuple):
    """How weighted task vectors are combined into the one that is added to the base.

    Attributes:
        elect_signs: only entries that agree with the sign of the sum count (TIES).
        normalize: divide by the sum of the weights that count.
        total: sum of all weights, by which is divided where signs are not elected.
        factor: mergekit's `lambda`.
    """

    elect_signs: bool = False
    normalize: bool = False
    total: float = 1.0
    factor: float = 1.0


def sum_rule(recipe: Recipe) -> SumRule:
    """The rule of a recipe of task vectors; a linear merge's weights are normalized already."""
    info = METHODS[recipe.method]
    if info.merges_base:
        return SumRule()
    total = float(torch.tensor(recipe.weights, dtype=torch.float32).sum())
    return SumRule(
        elect_signs=info.elects_signs,
        normalize=bool(recipe.option("normalize", False)) or (recipe.normalize and info.elects_signs),
        total=1.0 if abs(total) < _NO_SUM else total,
        factor=cast(float, recipe.option("lambda", 1.0)),
    )


class Term(NamedTuple):
    """One task vector's tensor in a sum; `keep` is None where nothing is dropped."""

    delta: Delta
    weight: float
    keep: Keep | None


class Parts(NamedTuple):
    """What a tensor is merged from: the base's tensor, and the weighted task vectors of the experts `names`."""

    base: Tensor
    names: list[str]
    terms: list[Term]
    rule: SumRule


def write_sum(target: Tensor, base: Tensor, terms: Sequence[Term], rule: SumRule) -> None:
    """Write base + sum of weighted, trimmed or dropped and (for TIES) sign-elected task vectors into `target`."""
    out, flat_base = target.view(-1), base.reshape(-1)  # view() raises instead of copying: a copy is not the model
    size = piece_entries(out.device.type)
    for start in range(0, out.numel(), size):
        piece = slice(start, start + size)
        weighted = []
        for delta, weight, keep in terms:
            values = delta.piece(piece) if keep is None else keep(delta.piece(piece))
            weighted.append(values * weight)
        merged = combine(weighted, [term.weight for term in terms], rule)
        if rule.factor != 1.0:
            merged *= rule.factor
        out[piece] = merged.add_(flat_base[piece].float()).to(out.dtype)


def combine(weighted: Sequence[Tensor], weights: Sequence[float], rule: SumRule) -> Tensor:
    """Sum of weighted task vectors; with sign election only the entries that agree with the sum's sign count."""
    total = weighted[0].clone() if len(weighted) > 1 else weighted[0]
    for values in weighted[1:]:
        total += values
    if not rule.elect_signs:
        return _divide(total, rule.total) if rule.normalize else total
    if len(weighted) == 1:
        only = term_divisor(weights[0])
        return _divide(total, only) if rule.normalize and only else total
    majority = torch.ge(total, 0, out=torch.empty_like(total)).mul_(2).sub_(1)
    agreed = torch.zeros_like(total)
    for values in weighted:
        agreed += (values * majority).clamp_(min=0)  # magnitudes of the entries that agree
    agreed.mul_(majority)
    return agreed.div_(agreeing_weight(weighted, weights, majority)) if rule.normalize else agreed


def term_divisor(weight: float) -> float:
    """The number that a single task vector is divided by with sign election; 0 where float32 cannot hold its weight."""
    return float(torch.tensor(weight, dtype=torch.float32))


def _divide(values: Tensor, number: float) -> Tensor:
    """Divide in place, rounded alike on every device: by a Python number CUDA would multiply with its reciprocal."""
    return values.div_(values.new_full((), number))


def agreeing_weight(weighted: Sequence[Tensor], weights: Sequence[float], majority: Tensor) -> Tensor:
    """Sum of the weights whose task vectors agree with the majority, entry by entry; 1 where it is zero."""
    total = torch.zeros_like(majority)
    for values, weight in zip(weighted, weights, strict=True):
        total += (values * majority > 0) * weight
    return total.masked_fill_(total == 0, 1.0)


def write_between(target: Tensor, base: Tensor, delta: Delta, factors: Factors) -> None:
    """Write the weighted sum of base and expert (base + delta) into `target`."""
    out, flat_base, size = target.view(-1), base.reshape(-1), piece_entries(target.device.type)
    for start in range(0, out.numel(), size):
        piece = slice(start, start + size)
        near = flat_base[piece].float()
        merged = near * factors.base + (near + delta.piece(piece)) * factors.expert
        out[piece] = merged.to(out.dtype)
