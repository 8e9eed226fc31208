"""The losses of the pool's members on both training sets, each under its own settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from core.data.training_pairs import TrainingPairs
from core.jobs.live_pool import LivePool
from core.merging.recipes import Recipe
from core.models.row_budget import row_tokens
from core.search.evaluator import Evaluator
from core.search.expert_losses import ExpertShares
from core.search.scoring import REFUSAL_OPENING, Scorer, Scores, TrainingSet


@dataclass(frozen=True)
class ParentScores:
    """Scores members of the pool.

    Attributes:
        pool: the loaded pool.
        evaluator: scores members that have the merge's settings, and keeps the scores for the search.
        shares: the experts of the domain pairs.
        pairs: the training pairs.
    """

    pool: LivePool
    evaluator: Evaluator
    shares: ExpertShares | None
    pairs: TrainingPairs

    def scorer_of(self, name: str, recipe: Recipe) -> Callable[[], Scores]:
        """A function that scores the member whose weights are written.

        Args:
            name: of the member.
            recipe: gives the member's weights. Its score belongs to a merge, under the merge's settings, so that the
                score of a member with other settings is not kept under it.
        """
        if name in self.pool.own:
            return partial(self._score_as_itself, name)
        self.evaluator.measured_before(recipe)
        return partial(self.evaluator.live_scores, recipe)

    def _score_as_itself(self, name: str) -> Scores:
        own = self.pool.member(name)
        rows = row_tokens(own.model)
        safety = TrainingSet(own.tokenizer, self.pairs.safety, opening=REFUSAL_OPENING, row_tokens=rows)
        domain = TrainingSet(own.tokenizer, self.pairs.domain, opening=None, row_tokens=rows)
        others = self.pairs.benign
        benign = TrainingSet(own.tokenizer, others, opening=None, row_tokens=rows) if others else None
        return Scorer(own.model, safety, domain, shares=self.shares, benign=benign).score()


def losses_of(scores: Scores) -> dict[str, Any]:
    """A model's losses under the keys of `ModelResult`."""
    return {
        "ce_safety": scores.safety.loss if scores.safety else None,
        "ce_expert": scores.expert.loss if scores.expert else None,
        "ce_benign": scores.benign.loss if scores.benign else None,
    }
