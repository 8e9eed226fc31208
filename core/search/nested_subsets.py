"""Training sets in nested subsets, so that a candidate can be scored on a few pairs first and on more where it matters.

A subset holds the one before it: going from an eighth to a quarter scores the new pairs only. Which pairs come first is
drawn once, with a fixed seed, and is the same for all candidates, so that their losses can be compared pair by pair.
Each increment is packed in rows of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch

from core.data.training_pairs import Sample
from core.search.scoring import Scorer, Scores, SetScore, TrainingSet

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the pairs, subset by subset."""
FEWEST = 8
"""Pairs of a first subset, at least (if there are so many): with fewer a spread cannot be told."""
_SURE = 2
"""Pairs of each group at the front of the order: a spread within a group needs two."""


class NestedSet:
    """A training set that can be scored increment by increment.

    Args:
        tokenizer: the pool's tokenizer.
        samples: K question-answer pairs.
        opening: as of `TrainingSet`.
        groups: (K,) names; every subset has its part of each. None = one group.

    Attributes:
        order: the set's places, the first subset's before the second's.
        sizes: how many pairs each subset holds, growing to K.
    """

    def __init__(
        self, tokenizer: Any, samples: Sequence[Sample], opening: int | None, groups: Sequence[str] | None = None
    ) -> None:
        self.size = len(samples)
        self.order = nested_order(groups or [""] * len(samples))
        fewest = max(FEWEST, _SURE * len(set(groups or "")))
        self.sizes = tuple(min(self.size, max(fewest, math.ceil(share * self.size))) for share in SHARES)
        starts = (0, *self.sizes[:-1])
        chosen = [self.order[start:end] for start, end in zip(starts, self.sizes, strict=True)]
        self._parts = [
            TrainingSet(tokenizer, [samples[place] for place in places], opening) if places else None
            for places in chosen
        ]
        self.tokens = sum(part.tokens for part in self._parts if part)

    def keep_lower_blocks(self, model: Any, blocks: int) -> None:
        """As `TrainingSet.keep_lower_blocks`."""
        for part in self._parts:
            if part:
                part.keep_lower_blocks(model, blocks)

    def part_tokens(self, stage: int) -> int:
        """Tokens read to score the increment that makes subset number `stage`."""
        part = self._parts[stage]
        return part.tokens if part else 0

    def score_part(self, model: Any, stage: int) -> SetScore:
        """Score `model` on the increment that makes subset number `stage`; it may be empty."""
        part = self._parts[stage]
        return part.score(model) if part else SetScore(math.nan, math.nan, torch.empty(0))

    def joined(self, parts: Sequence[SetScore]) -> SetScore:
        """The score on a subset from those of its increments, losses in the set's order."""
        losses = torch.cat([part.per_sample for part in parts])
        own = sum(part.own * part.per_sample.numel() for part in parts if part.per_sample.numel())
        in_order = losses[torch.tensor(self.order[: losses.numel()]).argsort()]
        mean = float(in_order.double().mean())
        return SetScore(mean, own / losses.numel(), in_order, sum(part.tokens for part in parts))

    def score(self, model: Any) -> SetScore:
        """Loss and own-answer share of `model` on the whole set."""
        return self.joined([self.score_part(model, stage) for stage in range(len(self.sizes))])


class NestedScorer(Scorer[NestedSet]):
    """Scores the live model on nested subsets of both training sets."""

    @property
    def stages(self) -> int:
        return len(SHARES)

    def samples(self, stage: int, with_safety: bool) -> int:
        """Pairs that subset number `stage` holds, of the sets that are scored."""
        return self.expert.sizes[stage] + (self.safety.sizes[stage] if with_safety else 0)

    def stage_of(self, samples: int, with_safety: bool) -> int:
        """The subset that holds so many pairs."""
        return next(stage for stage in range(self.stages) if self.samples(stage, with_safety) >= samples)

    def part_tokens(self, stage: int, with_safety: bool) -> int:
        """Tokens of an increment, of the sets that are scored."""
        return self.expert.part_tokens(stage) + (self.safety.part_tokens(stage) if with_safety else 0)

    def score_part(self, stage: int, with_safety: bool) -> Scores:
        """Score the model's current weights on one increment."""
        safety = self.safety.score_part(self.model, stage) if with_safety else None
        return Scores(safety, self.expert.score_part(self.model, stage))

    def joined(self, parts: Sequence[Scores]) -> Scores:
        """The scores on subset number `len(parts) - 1` from those of its increments."""
        safety = [part.safety for part in parts if part.safety]
        expert = self.expert.joined([part.expert for part in parts if part.expert])
        places = self.places(self.expert, len(parts) - 1)
        return Scores(self.safety.joined(safety) if safety else None, self.weighed(expert, places))

    @staticmethod
    def places(part: NestedSet, stage: int) -> list[int]:
        """Which pairs of a set subset number `stage` holds, in the set's order."""
        return sorted(part.order[: part.sizes[stage]])


def nested_order(groups: Sequence[str]) -> tuple[int, ...]:
    """Places 0 to K - 1 in an order of which every beginning has about its part of each group.

    Fixed: drawn with a seed of its own, so that a run's subsets follow from its data alone.
    """
    places = list(range(len(groups)))
    random.Random(0).shuffle(places)
    members: dict[str, list[int]] = {}
    for place in places:
        members.setdefault(groups[place], []).append(place)
    turns = [
        ((rank + 0.5) / len(group) if rank >= _SURE else 0.0, name, rank, place)
        for name, group in sorted(members.items())
        for rank, place in enumerate(group)
    ]
    return tuple(place for *_, place in sorted(turns))
