"""Slow, obvious float64 versions of the published methods, written from their formulas, one layer at a time."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

State = Mapping[str, Tensor]


def update_of(one: State, other: State, key: str) -> Tensor:
    return one[key].double() - other[key].double()


def projected(update: Tensor, alignment: Tensor) -> Tensor:
    """C dW with the matrix C written out."""
    length = math.sqrt(sum(float(value) ** 2 for value in alignment.reshape(-1)))
    return (alignment @ alignment.T / length) @ update


def cosine(one: Tensor, other: Tensor) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(one.reshape(-1), other.reshape(-1), strict=True))
    lengths = [math.sqrt(sum(float(value) ** 2 for value in tensor.reshape(-1))) for tensor in (one, other)]
    return dot / (lengths[0] * lengths[1]) if all(lengths) else 0.0


def projection_cosines(ancestor: State, aligned: State, expert: State) -> dict[str, float]:
    """By layer, of the layers for which it is defined."""
    found = {}
    for key in ancestor:
        change, alignment = update_of(expert, aligned, key), update_of(aligned, ancestor, key)
        if change.dim() == 2 and change.any() and alignment.any():
            found[key] = cosine(change, projected(change, alignment))
    return found


def mean(merges: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack([merge[key] for merge in merges]).mean(0) for key in merges[0]}


def interpolation(aligned: State, experts: list[State], t: float) -> dict[str, Tensor]:
    return mean([{key: (1 - t) * aligned[key].double() + t * one[key].double() for key in aligned} for one in experts])


def mergealign(
    ancestor: State, aligned: State, experts: list[State], domain: float, alignment: float
) -> dict[str, Tensor]:
    return mean(
        [
            {
                key: ancestor[key].double()
                + domain * update_of(one, ancestor, key)
                + alignment * update_of(aligned, ancestor, key)
                for key in ancestor
            }
            for one in experts
        ]
    )


def resta(
    ancestor: State, aligned: State, experts: list[State], weight: float, kept: State | None = None, drop: float = 0.0
) -> dict[str, Tensor]:
    """RESTA; `kept` marks the safety vector's entries that DARE keeps."""
    merges = []
    for one in experts:
        merge = {}
        for key in ancestor:
            vector = update_of(aligned, ancestor, key)
            if kept is not None:
                vector = vector * kept[key].double() / (1 - drop)
            merge[key] = one[key].double() + weight * vector
        merges.append(merge)
    return mean(merges)


def safe_lora(
    ancestor: State, aligned: State, experts: list[State], threshold: float = 0.5, layers: int = 0
) -> dict[str, Tensor]:
    merges = []
    for one in experts:
        cosines = projection_cosines(ancestor, aligned, one)
        lowest = sorted(cosines, key=lambda key: cosines[key])[:layers]
        merge = {}
        for key in ancestor:
            change = update_of(one, aligned, key)
            if key in lowest if layers else cosines.get(key, math.inf) < threshold:
                change = projected(change, update_of(aligned, ancestor, key))
            merge[key] = aligned[key].double() + change
        merges.append(merge)
    return mean(merges)


def safemerge(
    ancestor: State, aligned: State, experts: list[State], threshold: float, share: float
) -> dict[str, Tensor]:
    merges = []
    for one in experts:
        cosines = projection_cosines(ancestor, aligned, one)
        merge = {}
        for key in ancestor:
            own, safe = one[key].double(), aligned[key].double()
            merge[key] = (1 - share) * own + share * safe if cosines.get(key, math.inf) < threshold else own
        merges.append(merge)
    return mean(merges)


def lata(
    ancestor: State,
    aligned: State,
    experts: list[State],
    scale: float = 1.0,
    threshold: float = 1.0,
    by_rank: bool = True,
    logarithmic: bool = False,
) -> dict[str, Tensor]:
    merges = []
    for one in experts:
        changed = [key for key in ancestor if update_of(one, ancestor, key).any()]
        similarity = {key: cosine(update_of(one, ancestor, key), update_of(aligned, ancestor, key)) for key in changed}
        order = sorted(changed, key=lambda key: similarity[key], reverse=True)
        merge = {key: aligned[key].double() for key in ancestor}
        for position, key in enumerate(order, start=1):
            weight = position / len(order) if by_rank else 1.0
            if by_rank and logarithmic:
                weight = math.log(1 + position) / math.log(1 + len(order))
            if similarity[key] > threshold:
                weight = 0.0
            merge[key] = aligned[key].double() + scale * weight * update_of(one, ancestor, key)
        merges.append(merge)
    return mean(merges)


def first_of(scores: Tensor, count: int) -> set[int]:
    """Places of the entries with fewer than `count` larger scores, without those of score 0."""
    values = scores.reshape(-1).tolist()
    ascending = sorted(values)
    return {at for at, one in enumerate(values) if one > 0 and len(values) - bisect_right(ascending, one) < count}


def led(
    ancestor: State,
    members: Mapping[str, State],
    scores: Mapping[tuple[str, str, str], Tensor],
    ratios: Mapping[str, float],
    scale: float,
) -> dict[str, Tensor]:
    """LED-Merging; `scores` by task, by the model that has them (`base` or `own`), and by tensor."""
    merge = {}
    for key in ancestor:
        changing = [name for name, state in members.items() if update_of(state, ancestor, key).any()]
        elected = {
            name: first_of(scores[name, "base", key], int(ratios[name] * ancestor[key].numel()))
            & first_of(scores[name, "own", key], int(ratios[name] * ancestor[key].numel()))
            for name in changing
        }
        merged = ancestor[key].double().reshape(-1).clone()
        for name in changing:
            others = set().union(*(elected[other] for other in changing if other != name))
            for at in elected[name] - others:
                merged[at] += scale * update_of(members[name], ancestor, key).reshape(-1)[at]
        merge[key] = merged.reshape(ancestor[key].shape)
    return merge


@dataclass
class AlignMerge:
    """AlignMerge on all tensors in which an expert differs from the aligned model, as one long vector."""

    aligned: State
    experts: list[State]
    diagonal: State
    alignment_weight: float
    share: float
    budget: float
    budget_weight: float

    def __post_init__(self) -> None:
        self.keys = [
            key for key in self.aligned if any(update_of(one, self.aligned, key).any() for one in self.experts)
        ]
        self.fisher = torch.cat([self.diagonal[key].double().reshape(-1) for key in self.keys])
        self.changes = [self.joined(one) for one in self.experts]
        self.mean = torch.stack(self.changes).mean(0)

    def joined(self, state: State) -> Tensor:
        return torch.cat([update_of(state, self.aligned, key).reshape(-1) for key in self.keys])

    def subspace(self) -> Tensor:
        """1 for the entries with the largest Fisher values, at most a share of them; equal values go together."""
        values = self.fisher.tolist()
        ascending, most = sorted(values), self.share * len(values)
        kept = {one for one in values if len(values) - bisect_left(ascending, one) <= most}
        return torch.tensor([float(one in kept) for one in values], dtype=torch.float64)

    def rise(self, delta: Tensor) -> Tensor:
        """Of the predicted safety loss, as a share of that of the experts' mean."""
        return (self.fisher * delta**2).sum() / (self.fisher * self.mean**2).sum()

    def objective(self, delta: Tensor) -> Tensor:
        close = torch.stack([(self.fisher * (delta - one) ** 2).sum() for one in self.changes]).mean()
        motion = (self.fisher * self.subspace() * delta**2).sum()
        excess = (self.rise(delta) - self.budget).clamp_min(0.0)
        budget = (self.fisher * self.mean**2).sum() * excess**2
        return close + self.alignment_weight * motion + self.budget_weight * budget

    def merge(self) -> dict[str, Tensor]:
        def delta(mu: float) -> Tensor:
            return self.mean / (1 + self.alignment_weight * self.subspace() + mu)

        def error(mu: float) -> float:
            return 2 * self.budget_weight * max(0.0, float(self.rise(delta(mu))) - self.budget) - mu

        mu = brentq(error, 0.0, error(0.0) + 1.0, xtol=1e-13)
        parts = delta(mu).split([self.aligned[key].numel() for key in self.keys])
        merge = {key: tensor.double() for key, tensor in self.aligned.items()}
        return merge | {
            key: merge[key] + part.reshape(merge[key].shape) for key, part in zip(self.keys, parts, strict=True)
        }
