"""One search from start to end: ask, merge, score, tell, and measure the best of each generation.

Candidates shared between searches (the first generation of the same seed, the plain merge) are merged and scored once.
A candidate that fails gets a finite penalty and its reason in the log; the search goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from core.errors import DataError, MergeError, OutOfMemory, RunCancelled
from core.events import CandidateMeasured, CandidateScored, Event, Phase, Progress, Warned
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.models.fitting import naming_out_of_memory
from core.results import Rate
from core.search.cocktail import Cocktail
from core.search.evomm import EvoMM
from core.search.genome import Genome
from core.search.grid import Grid
from core.search.protocol import Optimizer
from core.search.scoring import Scorer, Scores, SetScore
from core.search.single import Single
from core.search.surrogate import EvoMMSurrogate
from core.specs import Optimizer as OptimizerName

PENALTY = 1e6
"""Objective of a candidate that could not be scored; far above any real one, and finite for CMA-ES."""


class ProbeRates(NamedTuple):
    """What the probe measured of the live model."""

    alignment: Rate | None
    accuracy: Rate | None


@dataclass(frozen=True)
class SearchPlan:
    """What one search minimises.

    Attributes:
        name: the optimiser's, or a baseline's name.
        genome: the searched numbers.
        steps: EvoMM's candidates at most.
        alpha: weight of CE_expert (EvoMM).
        safety: False leaves the safety data out.
        seed: of the optimiser.
        phase: the run's phase it belongs to.
        optimizer: who proposes the candidates.
        stop_when_flat: EvoMM's tolerance for ending early, in nats.
        temperature: LM-Cocktail's T.
        safety_share: D_safety's share of all pairs (LM-Cocktail).
    """

    name: str
    genome: Genome
    steps: int
    alpha: float
    safety: bool
    seed: int
    phase: Phase = "search"
    optimizer: OptimizerName = "evomm"
    stop_when_flat: float | None = None
    temperature: float = 1.0
    safety_share: float = 0.5


@dataclass
class Evaluator:
    """Merges recipes into the live model and scores them, remembering what it has scored, for all searches of a run.

    Attributes:
        probe_accuracy: share of probe questions that the live model gets right; None where there are no questions.
        evaluations: how many times the live model was scored or asked the probe questions.
    """

    merge: MergePool
    scorer: Scorer
    probe_accuracy: Callable[[], Rate] | None = None
    evaluations: int = 0
    _seen: dict[tuple[Recipe, bool], Scores] = field(default_factory=dict)
    _failed: dict[Recipe, str] = field(default_factory=dict)
    _accuracies: dict[Recipe, Rate] = field(default_factory=dict)

    def recall(self, candidates: Iterable[CandidateScored], measured: Iterable[CandidateMeasured] = ()) -> None:
        """Take what the run has found out before as known (per-sample losses are not kept).

        Args:
            candidates: that were scored.
            measured: accuracies of some of them on all probe questions, by which a grid chooses.
        """
        recipes: dict[tuple[str, int], Recipe] = {}
        for candidate in candidates:
            recipe = recipes[candidate.search, candidate.candidate] = Recipe.model_validate(candidate.recipe)
            if candidate.failure:
                self._failed[recipe] = candidate.failure
                continue
            safety = _recalled(candidate.ce_safety, candidate.estimated_alignment)
            expert = _recalled(candidate.ce_expert, candidate.estimated_accuracy)
            self._seen[recipe, safety is not None] = Scores(safety, expert)
        for event in measured:
            if event.accuracy is not None:
                self._accuracies[recipes[event.search, event.candidate]] = event.accuracy

    def scores(self, recipe: Recipe, with_safety: bool) -> Scores:
        """Scores of a recipe.

        Raises:
            MergeError: a loss is not finite, or the recipe cannot be applied.
        """
        if recipe in self._failed:
            raise MergeError(self._failed[recipe])
        known = self._seen.get((recipe, True)) or self._seen.get((recipe, with_safety))
        if known is None:
            self.evaluations += 1
            with naming_out_of_memory(f"Merging {recipe.label}"):
                self.merge.apply(recipe)
            known = self._seen[recipe, with_safety] = self.scorer.score(with_safety=with_safety)
        losses = [part.loss for part in (known.safety, known.expert) if part is not None]
        if not all(math.isfinite(loss) for loss in losses):
            raise MergeError(f"{recipe.label} has a loss that is not finite.")
        return known

    def live_scores(self, recipe: Recipe) -> Scores:
        """Scores of the live model, which holds `recipe` already; they need not be finite."""
        known = self._seen.get((recipe, True))
        if known is None:
            self.evaluations += 1
            known = self._seen[recipe, True] = self.scorer.score()
        return known

    def accuracy(self, recipe: Recipe) -> Rate:
        """Share of the probe questions that the merge gets right.

        Raises:
            MergeError: the recipe cannot be applied.
            DataError: there are no probe questions.
        """
        if self.probe_accuracy is None:
            hint = "Name a file in evaluation.probe_questions, or leave grid search out."
            raise DataError("Grid search chooses by probe questions, and this run has none.", hint)
        if recipe not in self._accuracies:
            self.evaluations += 1
            self.merge.apply(recipe)
            self._accuracies[recipe] = self.probe_accuracy()
        return self._accuracies[recipe]


def _recalled(loss: float | None, own: float | None) -> SetScore | None:
    return None if loss is None or own is None else SetScore(loss, own, torch.empty(0))


def run_search(
    plan: SearchPlan,
    evaluator: Evaluator,
    should_stop: Callable[[], bool],
    probe: Callable[[], ProbeRates] | None = None,
) -> Generator[Event, None, Recipe | None]:
    """Search, yielding every candidate as it is scored; the best is the one with the lowest objective.

    Args:
        plan: what is searched and minimised.
        evaluator: merges and scores.
        should_stop: asked before each candidate.
        probe: measures the live model; called on each generation's best when it is a new best.

    Returns:
        What was found: the best candidate's recipe, or for LM-Cocktail the mixture of the parents that were scored;
        None when no candidate could be scored.

    Raises:
        RunCancelled: `should_stop` said so.
    """
    optimizer = make_optimizer(plan)
    best: CandidateScored | None = None
    count, generation, started, worked = 0, 0, time.monotonic(), 0
    while recipes := optimizer.ask():
        objectives, before = [], best
        for recipe in recipes:
            if should_stop():
                raise RunCancelled
            evaluations = evaluator.evaluations
            event = _score_candidate(plan, evaluator, recipe, count, generation)
            yield event
            if plan.optimizer == "grid" and not event.failure:
                yield _measured(plan, event, ProbeRates(None, evaluator.accuracy(recipe)))
            objectives.append(event.objective)
            if not event.failure and (best is None or event.objective < best.objective):
                best = event
            count += 1
            worked += evaluator.evaluations > evaluations
            yield _progress(plan, count, worked, optimizer.size, started)
        optimizer.tell(objectives)
        if probe is not None and best is not None and best is not before:
            evaluator.merge.apply(Recipe.model_validate(best.recipe))
            rates = ProbeRates(None, None)
            try:
                rates = probe()
            except OutOfMemory as error:
                yield Warned(message=f"{error.message} Candidate {best.candidate} is not measured.", hint=error.hint)
            yield _measured(plan, best, rates)
        generation += 1
    if optimizer.ended_early:
        yield _ended_early(plan, count, optimizer)
    return optimizer.result(Recipe.model_validate(best.recipe) if best else None)


def make_optimizer(plan: SearchPlan) -> Optimizer:
    """The optimiser that a plan names, at its beginning."""
    match plan.optimizer:
        case "evomm" | "evomm_surrogate" if not plan.genome.genes:
            return Single(plan.genome)
        case "evomm":
            return EvoMM(plan.genome, plan.steps, plan.seed, plan.stop_when_flat)
        case "evomm_surrogate":
            return EvoMMSurrogate(plan.genome, plan.steps, plan.seed, plan.stop_when_flat)
        case "grid":
            return Grid(plan.genome)
        case "cocktail":
            return Cocktail(plan.genome, plan.temperature)


def _objective(plan: SearchPlan, evaluator: Evaluator, recipe: Recipe, scores: Scores) -> float:
    """What the plan's optimiser minimises: losses in nats per token; for a grid the share of wrong answers."""
    match plan.optimizer:
        case "evomm" | "evomm_surrogate":
            return scores.objective(plan.alpha, plan.safety)
        case "grid":
            return 1.0 - evaluator.accuracy(recipe).rate
        case "cocktail":
            return scores.mean_loss(plan.safety_share if plan.safety else 0.0)


def _score_candidate(
    plan: SearchPlan, evaluator: Evaluator, recipe: Recipe, number: int, generation: int
) -> CandidateScored:
    started, failure = time.monotonic(), ""
    objective, scores = PENALTY, Scores(None, None)
    try:
        scores = evaluator.scores(recipe, plan.safety)
        objective = _objective(plan, evaluator, recipe, scores)
    except MergeError as error:
        failure = str(error)
    return CandidateScored(
        search=plan.name,
        candidate=number,
        generation=generation,
        recipe=recipe.model_dump(mode="json"),
        objective=objective,
        ce_safety=scores.safety.loss if scores.safety else None,
        ce_expert=scores.expert.loss if scores.expert else None,
        estimated_alignment=scores.safety.own if scores.safety else None,
        estimated_accuracy=scores.expert.own if scores.expert else None,
        seconds=time.monotonic() - started,
        failure=failure,
    )


def _measured(plan: SearchPlan, candidate: CandidateScored, rates: ProbeRates) -> CandidateMeasured:
    return CandidateMeasured(
        search=plan.name,
        candidate=candidate.candidate,
        generation=candidate.generation,
        alignment=rates.alignment,
        accuracy=rates.accuracy,
    )


def _progress(plan: SearchPlan, done: int, worked: int, total: int, started: float) -> Progress:
    """Only the candidates that took work, as they were not known before, tell how long the others will take."""
    left = (time.monotonic() - started) / worked * (total - done) if worked else None
    return Progress(phase=plan.phase, done=done, total=total, message=plan.name, seconds_left=left)


def _ended_early(plan: SearchPlan, done: int, optimizer: Optimizer) -> Progress:
    message = f"{plan.name} ended after {done} of {optimizer.size} candidates: {optimizer.ended_early}"
    return Progress(
        phase=plan.phase, done=done, total=optimizer.size, message=message, seconds_left=0.0, ended_early=True
    )
