"""Training sets in nested subsets, so that a candidate can be scored on a few pairs first and on more if it matters.

Each subset contains the one before it: going from an eighth to a quarter scores only the new pairs. The order of the
pairs is drawn once, with a fixed seed, and is the same for all candidates, so that their losses can be compared pair by
pair. Each increment is packed in rows of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch

from core.data.training_pairs import Sample
from core.models.packing import DEFAULT_ROW_TOKENS
from core.search.scoring import Scorer, Scores, SetScore, TrainingSet

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Share of the pairs in each subset."""
FEWEST = 8
"""Fewest pairs of the first subset, if there are so many: fewer give no reliable variance."""
_LEADING = 2
"""Pairs of each group at the front of the order: a variance within a group needs two."""


class NestedSet:
    """A training set that can be scored increment by increment.

    Args:
        tokenizer: the pool's tokenizer.
        samples: K question-answer pairs.
        opening: as of `TrainingSet`.
        groups: (K,) group names; every subset has its share of each group. None = one group.
        row_tokens: as of `TrainingSet`.

    Attributes:
        size: K.
        order: indices of the pairs, the first subset's before the second's.
        sizes: number of pairs in each subset, growing to K.
        tokens: tokens of all pairs.
    """

    def __init__(
        self,
        tokenizer: Any,
        samples: Sequence[Sample],
        opening: int | None,
        groups: Sequence[str] | None = None,
        row_tokens: int = DEFAULT_ROW_TOKENS,
    ) -> None:
        self.size = len(samples)
        self.order = nested_order(groups or [""] * len(samples))
        fewest = max(FEWEST, _LEADING * len(set(groups or "")))
        self.sizes = tuple(min(self.size, max(fewest, math.ceil(share * self.size))) for share in SHARES)
        starts = (0, *self.sizes[:-1])
        chosen = [self.order[start:end] for start, end in zip(starts, self.sizes, strict=True)]
        self._increments = [
            TrainingSet(tokenizer, [samples[place] for place in places], opening, row_tokens=row_tokens)
            if places
            else None
            for places in chosen
        ]
        self.tokens = sum(increment.tokens for increment in self._increments if increment)

    def keep_lower_blocks(self, model: Any, blocks: int) -> None:
        """As `TrainingSet.keep_lower_blocks`."""
        for increment in self._increments:
            if increment:
                increment.keep_lower_blocks(model, blocks)

    def part_tokens(self, stage: int) -> int:
        """Tokens of the increment that completes subset number `stage`."""
        increment = self._increments[stage]
        return increment.tokens if increment else 0

    def score_part(self, model: Any, stage: int) -> SetScore:
        """Score `model` on the increment that completes subset number `stage`; the increment may be empty."""
        increment = self._increments[stage]
        return increment.score(model) if increment else SetScore(math.nan, math.nan, torch.empty(0))

    def joined(self, parts: Sequence[SetScore]) -> SetScore:
        """The score on a subset, from those of its increments; losses are in the set's order."""
        losses = torch.cat([part.per_sample for part in parts])
        greedy = sum(part.greedy_share * part.per_sample.numel() for part in parts if part.per_sample.numel())
        in_order = losses[torch.tensor(self.order[: losses.numel()]).argsort()]
        mean = float(in_order.double().mean())
        return SetScore(mean, greedy / losses.numel(), in_order, sum(part.tokens for part in parts))

    def score(self, model: Any) -> SetScore:
        """The score of `model` on the whole set."""
        return self.joined([self.score_part(model, stage) for stage in range(len(self.sizes))])


class NestedScorer(Scorer[NestedSet]):
    """Scores the live model on nested subsets of both training sets."""

    @property
    def stages(self) -> int:
        """Number of subsets."""
        return len(SHARES)

    def samples(self, stage: int, with_safety: bool) -> int:
        """Pairs in subset number `stage`, of the sets that are scored."""
        return self.expert.sizes[stage] + (self.safety.sizes[stage] if with_safety else 0)

    def stage_of(self, samples: int, with_safety: bool) -> int:
        """The number of the subset that holds so many pairs."""
        return next(stage for stage in range(self.stages) if self.samples(stage, with_safety) >= samples)

    def part_tokens(self, stage: int, with_safety: bool) -> int:
        """Tokens of an increment, of the sets that are scored."""
        return self.expert.part_tokens(stage) + (self.safety.part_tokens(stage) if with_safety else 0)

    def score_part(self, stage: int, with_safety: bool) -> Scores:
        """Score the model's current weights on one increment."""
        safety = self.safety.score_part(self.model, stage) if with_safety else None
        return Scores(safety, self.expert.score_part(self.model, stage))

    def joined(self, parts: Sequence[Scores]) -> Scores:
        """The scores on subset number `len(parts) - 1`, from those of its increments."""
        safety = [part.safety for part in parts if part.safety]
        expert = self.expert.joined([part.expert for part in parts if part.expert])
        places = self.places(self.expert, len(parts) - 1)
        return Scores(self.safety.joined(safety) if safety else None, self.weighed(expert, places))

    @staticmethod
    def places(part: NestedSet, stage: int) -> list[int]:
        """Indices of the pairs of a set in subset number `stage`, in the set's order."""
        return sorted(part.order[: part.sizes[stage]])


def nested_order(groups: Sequence[str]) -> tuple[int, ...]:
    """Indices 0 to K - 1 in an order in which every beginning has about its share of each group.

    The order is drawn with a fixed seed, so that a run's subsets follow from its data alone.
    """
    places = list(range(len(groups)))
    random.Random(0).shuffle(places)
    members: dict[str, list[int]] = {}
    for place in places:
        members.setdefault(groups[place], []).append(place)
    turns = [
        ((rank + 0.5) / len(group) if rank >= _LEADING else 0.0, name, rank, place)
        for name, group in sorted(members.items())
        for rank, place in enumerate(group)
    ]
    return tuple(place for *_, place in sorted(turns))
