"""Merges recipes into the live model and scores them; all searches of a run share the results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from core.contracts.events import CandidateMeasured, CandidateScored, GradientStep
from core.contracts.results import Rate
from core.errors import DataError, MergeError
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.models.out_of_memory import translate_oom
from core.search.gradient.backward import Differentiator
from core.search.scoring import Scorer, Scores, SetScore


@dataclass
class Evaluator:
    """Merges recipes into the live model and scores them; all searches of a run share its results.

    Attributes:
        merge: writes recipes into the live model.
        scorer: scores the live model on the training pairs.
        probe_accuracy: share of probe questions that the live model gets right; None where there are no questions.
        tokens: tokens of training pairs read for candidates, without those read before the run was resumed.
        evaluations: how many times the live model was scored or answered the probe questions.
        failed: recipes that could not be scored, with the reason; no search of the run tries them again.
        differentiator: differentiates the losses, for gradient searches; None where the run has none.
    """

    merge: MergePool
    scorer: Scorer
    probe_accuracy: Callable[[], Rate] | None = None
    tokens: int = 0
    evaluations: int = 0
    failed: dict[Recipe, str] = field(default_factory=dict)
    differentiator: Differentiator | None = None
    _steps: dict[tuple[str, int], GradientStep] = field(default_factory=dict)
    _read: set[tuple[Recipe, bool]] = field(default_factory=set)
    _logged: dict[tuple[str, int], CandidateScored] = field(default_factory=dict)
    _seen: dict[tuple[Recipe, bool], Scores] = field(default_factory=dict)
    _accuracies: dict[Recipe, Rate] = field(default_factory=dict)

    def logged(self, search: str, number: int, recipe: Recipe) -> CandidateScored | None:
        """The log's entry of a search's candidate, if it has this recipe."""
        event = self._logged.get((search, number))
        return event if event is not None and Recipe.model_validate(event.recipe) == recipe else None

    def logged_step(self, search: str, number: int) -> GradientStep | None:
        """The log's entry of a step of a gradient search."""
        return self._steps.get((search, number))

    def recall(
        self,
        candidates: Iterable[CandidateScored],
        measured: Iterable[CandidateMeasured] = (),
        steps: Iterable[GradientStep] = (),
    ) -> None:
        """Take over what the log holds of earlier work (without losses per sample, which it does not keep).

        Args:
            candidates: that were scored.
            measured: accuracies of some of them on all probe questions, by which a grid chooses.
            steps: of gradient searches.
        """
        self._steps |= {(step.search, step.step): step for step in steps}
        recipes: dict[tuple[str, int], Recipe] = {}
        for candidate in candidates:
            recipe = recipes[candidate.search, candidate.candidate] = Recipe.model_validate(candidate.recipe)
            self._logged[candidate.search, candidate.candidate] = candidate
            if candidate.failure:
                self.failed[recipe] = candidate.failure
                continue
            safety = _recalled(candidate.ce_safety, candidate.estimated_alignment)
            expert = _recalled(candidate.ce_expert, candidate.estimated_accuracy, candidate.expert_losses)
            benign = _recalled(candidate.ce_benign, 0.0)
            self._seen[recipe, safety is not None] = Scores(safety, expert, benign)
        for event in measured:
            if event.accuracy is not None:
                self._accuracies[recipes[event.search, event.candidate]] = event.accuracy

    def scores(self, recipe: Recipe, with_safety: bool, per_sample: bool = False) -> Scores:
        """Scores of a recipe; with `per_sample` also where the log held them, without the losses of each pair.

        Raises:
            MergeError: a loss is not finite, or the recipe cannot be applied.
        """
        known = self._seen.get((recipe, True)) or self._seen.get((recipe, with_safety))
        if known is None or (per_sample and known.expert is not None and not known.expert.per_sample.numel()):
            self.evaluations += 1
            with translate_oom(f"Merging {recipe.label}"):
                self.merge.apply(recipe)
            known = self._seen[recipe, with_safety] = self.scorer.score(with_safety=with_safety)
            if not {(recipe, True), (recipe, with_safety)} & self._read:
                self.tokens += known.tokens
        losses = [part.loss for part in known if part is not None]
        if not all(math.isfinite(loss) for loss in losses):
            raise MergeError(f"{recipe.label} has a loss that is not finite.", code="loss-not-finite")
        return known if with_safety else known._replace(safety=None, benign=None)

    def live_scores(self, recipe: Recipe) -> Scores:
        """Scores of the live model, which holds `recipe` already; they need not be finite."""
        known = self._seen.get((recipe, True))
        if known is None:
            self.evaluations += 1
            known = self._seen[recipe, True] = self.scorer.score()
        return known

    def measured_before(self, recipe: Recipe) -> None:
        """Record that a model was scored when it was measured: as a candidate it costs no tokens."""
        self._read.add((recipe, True))

    def accuracy(self, recipe: Recipe) -> Rate:
        """Share of the probe questions that the merge gets right.

        Raises:
            MergeError: the recipe cannot be applied.
            DataError: there are no probe questions.
        """
        if self.probe_accuracy is None:
            hint = "Name a file in evaluation.probe_questions, or leave grid search out."
            message = "Grid search chooses by probe questions, but this run has none."
            raise DataError(message, hint, code="no-probe-questions")
        if recipe not in self._accuracies:
            self.evaluations += 1
            self.merge.apply(recipe)
            self._accuracies[recipe] = self.probe_accuracy()
        return self._accuracies[recipe]


def _recalled(
    loss: float | None, greedy: float | None, by_expert: Mapping[str, float] | None = None
) -> SetScore | None:
    if loss is None or greedy is None:
        return None
    return SetScore(loss, greedy, torch.empty(0), by_expert=by_expert or {})
