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

from core.errors import MergeError, RunCancelled
from core.events import CandidateMeasured, CandidateScored, Event, Phase, Progress
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.results import Rate
from core.search.evomm import EvoMM
from core.search.genome import Genome
from core.search.scoring import Scorer, Scores, SetScore

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
        name: `evomm`, or a baseline's name.
        genome: the searched numbers.
        steps: candidates at most.
        alpha: weight of CE_expert.
        safety: False leaves the safety term out.
        seed: of the optimiser.
        phase: the run's phase it belongs to.
    """

    name: str
    genome: Genome
    steps: int
    alpha: float
    safety: bool
    seed: int
    phase: Phase = "search"


@dataclass
class Evaluator:
    """Merges recipes into the live model and scores them, remembering what it has scored.

    Attributes:
        scored: how many times a merge was scored.
    """

    merge: MergePool
    scorer: Scorer
    scored: int = 0
    _seen: dict[tuple[Recipe, bool], Scores] = field(default_factory=dict)
    _failed: dict[Recipe, str] = field(default_factory=dict)

    def recall(self, candidates: Iterable[CandidateScored]) -> None:
        """Take candidates that the run has scored before as scored (per-sample losses are not kept)."""
        for candidate in candidates:
            recipe = Recipe.model_validate(candidate.recipe)
            if candidate.failure:
                self._failed[recipe] = candidate.failure
                continue
            safety = _recalled(candidate.ce_safety, candidate.estimated_alignment)
            expert = _recalled(candidate.ce_expert, candidate.estimated_accuracy)
            self._seen[recipe, safety is not None] = Scores(safety, expert)

    def scores(self, recipe: Recipe, with_safety: bool) -> Scores:
        """Scores of a recipe.

        Raises:
            MergeError: a loss is not finite, or the recipe cannot be applied.
        """
        if recipe in self._failed:
            raise MergeError(self._failed[recipe])
        known = self._seen.get((recipe, True)) or self._seen.get((recipe, with_safety))
        if known is None:
            self.scored += 1
            self.merge.apply(recipe)
            known = self._seen[recipe, with_safety] = self.scorer.score(with_safety=with_safety)
        losses = [part.loss for part in (known.safety, known.expert) if part is not None]
        if not all(math.isfinite(loss) for loss in losses):
            raise MergeError(f"{recipe.label} has a loss that is not finite.")
        return known


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
        The best recipe; None when no candidate could be scored.

    Raises:
        RunCancelled: `should_stop` said so.
    """
    optimizer = EvoMM(plan.genome, plan.steps, plan.seed)
    best: CandidateScored | None = None
    count, generation, started, before_all = 0, 0, time.monotonic(), evaluator.scored
    while points := optimizer.ask():
        objectives, before = [], best
        for point in points:
            if should_stop():
                raise RunCancelled
            event = _score_candidate(plan, evaluator, plan.genome.recipe(point), count, generation)
            yield event
            objectives.append(event.objective)
            if not event.failure and (best is None or event.objective < best.objective):
                best = event
            count += 1
            yield _progress(plan, count, evaluator.scored - before_all, started)
        optimizer.tell(objectives)
        if probe is not None and best is not None and best is not before:
            yield _measure_best(plan, evaluator, best, generation, probe)
        generation += 1
    return Recipe.model_validate(best.recipe) if best else None


def _score_candidate(
    plan: SearchPlan, evaluator: Evaluator, recipe: Recipe, number: int, generation: int
) -> CandidateScored:
    started, failure = time.monotonic(), ""
    objective, scores = PENALTY, Scores(None, None)
    try:
        scores = evaluator.scores(recipe, plan.safety)
        objective = scores.objective(plan.alpha, plan.safety)
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


def _measure_best(
    plan: SearchPlan, evaluator: Evaluator, best: CandidateScored, generation: int, probe: Callable[[], ProbeRates]
) -> CandidateMeasured:
    evaluator.merge.apply(Recipe.model_validate(best.recipe))
    rates = probe()
    return CandidateMeasured(
        search=plan.name,
        candidate=best.candidate,
        generation=generation,
        alignment=rates.alignment,
        accuracy=rates.accuracy,
    )


def _progress(plan: SearchPlan, done: int, scored: int, started: float) -> Progress:
    """Candidates known from before cost nothing: only those scored in this search tell how long the others take."""
    left = (time.monotonic() - started) / scored * (plan.steps - done) if scored else None
    return Progress(phase=plan.phase, done=done, total=plan.steps, message=plan.name, seconds_left=left)
