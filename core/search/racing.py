"""Racing: a candidate is scored on a few pairs first, and on more only while it may be better than the best so far.

After each nested subset the candidate's losses are compared with the best one's pair by pair. The comparison uses
Student's one-sided bound on the mean difference at `CONFIDENCE`, with Welch and Satterthwaite's degrees of freedom over
both sets and a finite-population correction, as all K pairs are what counts. A candidate whose gain is shown to be at
most `NEGLIGIBLE` is dropped; its losses are then estimated as those of the best on all pairs plus the mean difference.
The best is always scored on all pairs, and at the end so are the dropped candidates with the lowest estimates; no other
can be the result. The idea is that of Hoeffding races (Maron and Moore 1994) and F-Race (Birattari et al. 2002).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from core.contracts.events import CandidateScored
from core.errors import MergeError
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.models.out_of_memory import translate_oom
from core.search.nested_subsets import NestedScorer
from core.search.objectives import Goal
from core.search.scoring import Scores, SetScore

CONFIDENCE = 0.95
"""Confidence of each comparison that drops a candidate."""
NEGLIGIBLE = 0.002
"""Share of the best's objective: a candidate that cannot gain more is not scored on more pairs."""
FINALISTS = 3
"""Dropped candidates that are scored on all pairs at the end of a search."""


class Difference(NamedTuple):
    """A mean difference in loss (candidate minus best, nats), its variance and degrees of freedom."""

    mean: float
    variance: float
    freedom: float

    @property
    def lower_bound(self) -> float:
        """Lower bound of the difference on all pairs, with `CONFIDENCE`."""
        if self.variance == 0 or not math.isfinite(self.variance):
            return self.mean if self.variance == 0 else -math.inf
        from scipy.stats import t

        return self.mean - float(t.ppf(CONFIDENCE, self.freedom)) * math.sqrt(self.variance)


def paired_difference(ours: Tensor, theirs: Tensor, whole: int) -> Difference:
    """The difference of two candidates' losses on the same n of `whole` pairs; infinite variance from one pair."""
    differences = ours.double() - theirs.double()
    count = differences.numel()
    if count >= whole:
        return Difference(float(differences.mean()), 0.0, math.inf)
    variance = float(differences.var()) / count * (1 - count / whole) if count > 1 else math.inf
    return Difference(float(differences.mean()) if count else 0.0, variance, count - 1)


def total(parts: Iterable[tuple[float, Difference]]) -> Difference:
    """The weighted sum of independent differences (Welch 1947, Satterthwaite 1946)."""
    weighted = [(weight * part.mean, weight**2 * part.variance, part.freedom) for weight, part in parts if weight]
    variance = sum(spread for _, spread, _ in weighted)
    terms = sum(spread**2 / freedom for _, spread, freedom in weighted if 0 < spread < math.inf)
    freedom = variance**2 / terms if terms and math.isfinite(variance) else math.inf
    return Difference(sum(mean for mean, _, _ in weighted), variance, freedom)


@dataclass
class IncrementCache:
    """Scores of increments, for all searches of a run.

    After a resume, the log tells which increments were read, but not their losses.

    Attributes:
        tokens: tokens read so far; an increment that is read again after a resume does not count twice.
    """

    tokens: int = 0
    _scores: dict[tuple[Recipe, bool, int], Scores] = field(default_factory=dict)
    _read: dict[tuple[Recipe, bool], int] = field(default_factory=dict)

    def find(self, recipe: Recipe, stage: int, with_safety: bool) -> Scores | None:
        """An increment's scores; those on both sets also serve a search on domain data."""
        known = self._scores.get((recipe, True, stage)) or self._scores.get((recipe, with_safety, stage))
        return known if known is None or with_safety else known._replace(safety=None)

    def keep(self, recipe: Recipe, stage: int, scores: Scores) -> None:
        """Store an increment's scores."""
        self._scores[recipe, scores.safety is not None, stage] = scores

    def recall(self, recipe: Recipe, stages: int, with_safety: bool) -> None:
        """Record that the first `stages` increments were read."""
        self._read[recipe, with_safety] = max(stages, self._read.get((recipe, with_safety), 0))

    def count(self, recipe: Recipe, stage: int, with_safety: bool, tokens: int) -> None:
        """Record that an increment of so many tokens was read, unless it was read before."""
        if stage >= max(self._read.get((recipe, both), 0) for both in (True, with_safety)):
            self.tokens += tokens
            self.recall(recipe, stage + 1, with_safety)


class Raced(NamedTuple):
    """A raced candidate's scores.

    Attributes:
        scores: on all pairs, or estimates from the first of them.
        samples: pairs that the scores rest on.
        all_samples: pairs in all.
    """

    scores: Scores
    samples: int
    all_samples: int

    @property
    def partial(self) -> bool:
        """Whether the scores are estimates."""
        return self.samples < self.all_samples


class Race:
    """One search's race.

    Args:
        merge: writes recipes into the live model.
        scorer: scores the live model on nested subsets.
        cache: the run's scores of increments.
        goal: how losses are judged.
        alpha: weight of the domain loss.
        safety: False leaves the safety data out.
    """

    def __init__(
        self, merge: MergePool, scorer: NestedScorer, cache: IncrementCache, goal: Goal, alpha: float, safety: bool
    ) -> None:
        self._merge = merge
        self._scorer = scorer
        self._cache = cache
        self._goal = goal
        self._alpha = alpha
        self._safety = safety
        self._live: Recipe | None = None
        self._best: CandidateScored | None = None
        self._best_recipe: Recipe | None = None
        self._dropped: list[CandidateScored] = []

    def score(self, recipe: Recipe, *, on_all_pairs: bool = False) -> Raced:
        """Score a recipe on one subset after another, until it is shown to be worse than the best.

        Args:
            recipe: the candidate.
            on_all_pairs: score it on all pairs without comparing.

        Raises:
            MergeError: a loss is not finite, or the recipe cannot be applied.
        """
        self._live = None  # other code writes into the live model between two candidates
        every, ours = self._scorer.samples(self._scorer.stages - 1, self._safety), []
        for stage in range(self._scorer.stages):
            ours.append(self._part(recipe, stage))
            self._cache.count(recipe, stage, self._safety, self._scorer.part_tokens(stage, self._safety))
            _require_finite(ours[-1], recipe)
            samples = self._scorer.samples(stage, self._safety)
            if samples == every:
                break
            estimate = None if on_all_pairs or self._best is None else self._estimate_if_worse(ours, self._best)
            if estimate is not None:
                return Raced(estimate, samples, every)
        return Raced(self._scorer.joined(ours), every, every)

    def add(self, candidate: CandidateScored) -> None:
        """Record a scored candidate, from this process or from the log before a resume."""
        if candidate.failure:
            return
        if candidate.partial:
            self._dropped.append(candidate)
        elif self._best is None or candidate.rank_key < self._best.rank_key:
            self._best, self._best_recipe = candidate, Recipe.model_validate(candidate.recipe)

    def finalists(self) -> list[Recipe]:
        """The dropped candidates with the lowest estimates."""
        nearest = sorted(self._dropped, key=lambda candidate: (candidate.rank_key, candidate.candidate))
        return list(dict.fromkeys(Recipe.model_validate(candidate.recipe) for candidate in nearest))[:FINALISTS]

    def _part(self, recipe: Recipe, stage: int) -> Scores:
        """An increment's scores; after a resume they are computed again."""
        known = self._cache.find(recipe, stage, self._safety)
        if known is None:
            if self._live != recipe:
                with translate_oom(f"Merging {recipe.label}"):
                    self._merge.apply(recipe)
                self._live = recipe
            known = self._scorer.score_part(stage, self._safety)
            self._cache.keep(recipe, stage, known)
        return known

    def _estimate_if_worse(self, ours: Sequence[Scores], best: CandidateScored) -> Scores | None:
        """Estimated scores on all pairs when the candidate is shown to be worse than the best; else None."""
        if self._best_recipe is None:
            return None
        theirs = [self._part(self._best_recipe, stage) for stage in range(len(ours))]
        mine, other = self._scorer.joined(ours), self._scorer.joined(theirs)
        safety = self._safety_difference(mine, other)
        expert = self._expert_difference(mine, other, len(ours) - 1)
        if not self._is_worse(safety, expert, best):
            return None
        return Scores(
            _estimated(mine.safety, best.ce_safety, safety) if safety else None,
            _estimated(mine.expert, best.ce_expert, expert, _by_expert(mine, other, best)),
        )

    def _is_worse(self, safety: Difference | None, expert: Difference, best: CandidateScored) -> bool:
        if self._goal.mode == "constraint" and safety is not None:
            if best.violation > 0:
                return safety.lower_bound > -NEGLIGIBLE * best.violation
            room = self._goal.safety_limit - (best.ce_safety or 0.0)
            return safety.lower_bound > room or expert.lower_bound > -NEGLIGIBLE * best.objective
        change = expert if safety is None else total([(1.0, safety), (self._alpha, expert)])
        return change.lower_bound > -NEGLIGIBLE * best.objective

    def _safety_difference(self, mine: Scores, other: Scores) -> Difference | None:
        if mine.safety is None or other.safety is None:
            return None
        return paired_difference(mine.safety.per_sample, other.safety.per_sample, self._scorer.safety.size)

    def _expert_difference(self, mine: Scores, other: Scores, stage: int) -> Difference:
        """The difference in CE_expert: over all pairs, or over each expert's mean where experts have weights."""
        ours, theirs = (scores.expert.per_sample for scores in (mine, other) if scores.expert)
        part, shares = self._scorer.expert, self._scorer.shares
        if shares is None:
            return paired_difference(ours, theirs, part.size)
        here, whole = shares.groups(self._scorer.places(part, stage)), shares.groups(range(part.size))
        return total(
            (share, paired_difference(ours[members], theirs[members], len(every)))
            for (share, members), (_, every) in zip(here, whole, strict=True)
        )


def _require_finite(scores: Scores, recipe: Recipe) -> None:
    for part in (scores.safety, scores.expert):
        if part is not None and not bool(torch.isfinite(part.per_sample).all()):
            raise MergeError(f"{recipe.label} has a loss that is not finite.", code="loss-not-finite")


def _by_expert(mine: Scores, other: Scores, best: CandidateScored) -> dict[str, float]:
    """Each expert's estimated loss: the best's on all its pairs plus the difference on the scored ones."""
    if mine.expert is None or other.expert is None:
        return {}
    return {
        name: max(0.0, best.expert_losses[name] + loss - other.expert.by_expert[name])
        for name, loss in mine.expert.by_expert.items()
        if name in best.expert_losses
    }


def _estimated(
    score: SetScore | None, best: float | None, difference: Difference, by_expert: dict[str, float] | None = None
) -> SetScore | None:
    """A subset's score with its loss estimated for all pairs; no loss is below 0."""
    if score is None or best is None:
        return None
    return score._replace(loss=max(0.0, best + difference.mean), by_expert=by_expert or {})
