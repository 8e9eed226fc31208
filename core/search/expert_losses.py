"""Assigns each domain pair to an expert, and computes CE_expert as a weighted mean of the experts' own losses.

Unless weights are given, CE_expert is the mean over all pairs (paper section 4.3), so that an expert with more pairs
counts more; the experts' own means are then reported only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from core.contracts.pool_spec import ExpertSpec
from core.data.training_pairs import Sample
from core.errors import DataError


@dataclass(frozen=True)
class ExpertShares:
    """The experts of the domain pairs, and their weights.

    Attributes:
        owners: (K,) reference of the expert that each pair of D_expert belongs to; empty where unknown.
        weights: weight of each expert's mean, by reference, adding up to 1; None = every pair counts the same.
    """

    owners: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None

    @property
    def several(self) -> bool:
        """Whether the pairs belong to more than one expert; else their means add no information."""
        return len(set(self.owners) - {""}) > 1

    @property
    def counts(self) -> dict[str, float]:
        """Weight of each expert's mean in CE_expert, by reference; empty unless there are `several`, all known."""
        if not self.several or "" in self.owners:
            return {}
        if self.weights is not None:
            return {name: weight for name, weight in self.weights.items() if weight > 0}
        return {name: self.owners.count(name) / len(self.owners) for name in sorted(set(self.owners))}

    def groups(self) -> list[tuple[float, list[int]]]:
        """The groups of pairs whose weighted means add up to CE_expert: each group's weight and its indices."""
        if self.weights is None:
            return [(1.0, list(range(len(self.owners))))]
        by_expert = self._indices_by_expert()
        return [(weight, by_expert.get(name, [])) for name, weight in self.weights.items() if weight > 0]

    def loss(self, per_sample: Tensor) -> float:
        """CE_expert in nats per token; NaN when an expert that counts has none of the pairs.

        Args:
            per_sample: (K,) losses of the pairs.
        """
        return sum(share * float(per_sample[members].double().mean()) for share, members in self.groups())

    def means(self, per_sample: Tensor) -> dict[str, float]:
        """Each expert's mean loss, in nats per token; empty unless there are `several`."""
        if not self.several:
            return {}
        by_expert = self._indices_by_expert()
        return {name: float(per_sample[members].double().mean()) for name, members in by_expert.items() if name}

    def _indices_by_expert(self) -> dict[str, list[int]]:
        by_expert: dict[str, list[int]] = {}
        for index, owner in enumerate(self.owners):
            by_expert.setdefault(owner, []).append(index)
        return by_expert


def expert_shares(
    samples: Sequence[Sample], experts: Sequence[ExpertSpec], weights: Mapping[str, float] | None
) -> ExpertShares:
    """Assign each domain pair to the expert that answered it, else to the one expert with the pair's domain.

    Args:
        samples: D_expert.
        experts: of the pool.
        weights: by reference or domain name, as `search.expert_weights`; experts left out count 1.

    Raises:
        DataError: there are weights, but a pair's expert is unknown or an expert that counts has no pair.
    """
    owners = tuple(_owner(sample, experts) for sample in samples)
    if weights is None:
        return ExpertShares(owners)
    raw = {expert.model: weights.get(expert.model, weights.get(expert.domain.name, 1.0)) for expert in experts}
    missing = next((name for name, weight in raw.items() if weight > 0 and name not in owners), None)
    if "" in owners or missing is not None:
        unknown = f"{owners.count('')} of {len(owners)} domain pairs belong to no known expert"
        raise DataError(
            f"search.expert_weights cannot be used: {unknown if missing is None else f'{missing} has no domain pair'}.",
            "Give each row of the domain file answered_by (the expert's reference) or category (its domain's name).",
            code="unknown-expert" if missing is None else "expert-without-pairs",
        )
    total = sum(raw.values())
    return ExpertShares(owners, {name: weight / total for name, weight in raw.items()})


def _owner(sample: Sample, experts: Sequence[ExpertSpec]) -> str:
    if len(experts) == 1 or sample.answered_by in {expert.model for expert in experts}:
        return experts[0].model if len(experts) == 1 else sample.answered_by
    domains = Counter(expert.domain.name for expert in experts)
    named = (expert.model for expert in experts if expert.domain.name == sample.category)
    return next(named, "") if domains[sample.category] == 1 else ""
