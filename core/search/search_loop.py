"""One search from start to end: ask, merge, score, tell, and measure the best of each generation.

Candidates that several searches share (the first generation of the same seed, the plain merge) are merged and scored
once. A candidate that fails gets a finite penalty, and its reason in the log; the search goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from core.contracts.events import CandidateMeasured, CandidateScored, Event, Progress, Warned
from core.contracts.results import ProbeRates, Rate
from core.errors import DataError, MergeError, OutOfMemory, RunCancelled
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.models.out_of_memory import translate_oom
from core.search.nested_subsets import NestedScorer
from core.search.objectives import loss_terms
from core.search.optimizer import Terms
from core.search.racing import IncrementCache, Race, Raced
from core.search.registry import make_objective, make_optimizer
from core.search.scoring import Scorer, Scores, SetScore
from core.search.search_messages import ended_early, measured, none_feasible
from core.search.search_plan import Objective, SearchPlan

PENALTY = 1e6
"""Objective of a candidate that could not be scored; far above any real one, and finite for CMA-ES."""


@dataclass
class Evaluator:
    """Merges recipes into the live model and scores them; all searches of a run share its results.

    Attributes:
        merge: writes recipes into the live model.
        scorer: scores the live model on the training pairs.
        probe_accuracy: share of probe questions that the live model gets right; None where there are no questions.
        evaluations: how many times the live model was scored or answered the probe questions.
        increments: scores on nested subsets, of candidates that are raced.
        failed: recipes that could not be scored, with the reason; no search of the run tries them again.
    """

    merge: MergePool
    scorer: Scorer[Any]
    probe_accuracy: Callable[[], Rate] | None = None
    evaluations: int = 0
    increments: IncrementCache = field(default_factory=IncrementCache)
    failed: dict[Recipe, str] = field(default_factory=dict)
    _tokens: int = 0
    _read: set[tuple[Recipe, bool]] = field(default_factory=set)
    _logged: dict[tuple[str, int], CandidateScored] = field(default_factory=dict)
    _seen: dict[tuple[Recipe, bool], Scores] = field(default_factory=dict)
    _accuracies: dict[Recipe, Rate] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens of training pairs read for candidates, without those read before the run was resumed."""
        return self._tokens + self.increments.tokens

    def logged(self, search: str, number: int, recipe: Recipe) -> CandidateScored | None:
        """The log's entry of a search's candidate, if it has this recipe."""
        event = self._logged.get((search, number))
        return event if event is not None and Recipe.model_validate(event.recipe) == recipe else None

    def race(self, recipe: Recipe, race: Race, on_all_pairs: bool) -> Raced:
        """Score a recipe in a race.

        Raises:
            MergeError: a loss is not finite, or the recipe cannot be applied.
        """
        self.evaluations += 1
        raced = race.score(recipe, on_all_pairs=on_all_pairs)
        if not raced.partial:
            self._seen[recipe, raced.scores.safety is not None] = raced.scores
        return raced

    def recall(self, candidates: Iterable[CandidateScored], measured: Iterable[CandidateMeasured] = ()) -> None:
        """Take over what the log holds of earlier work (without losses per sample, which it does not keep).

        Args:
            candidates: that were scored.
            measured: accuracies of some of them on all probe questions, by which a grid chooses.
        """
        recipes: dict[tuple[str, int], Recipe] = {}
        for candidate in candidates:
            recipe = recipes[candidate.search, candidate.candidate] = Recipe.model_validate(candidate.recipe)
            self._logged[candidate.search, candidate.candidate] = candidate
            if candidate.failure:
                self.failed[recipe] = candidate.failure
                continue
            if candidate.samples is not None and isinstance(self.scorer, NestedScorer):
                both = candidate.ce_safety is not None
                self.increments.recall(recipe, 1 + self.scorer.stage_of(candidate.samples, both), both)
            if not candidate.partial:
                safety = _recalled(candidate.ce_safety, candidate.estimated_alignment)
                expert = _recalled(candidate.ce_expert, candidate.estimated_accuracy, candidate.expert_losses)
                self._seen[recipe, safety is not None] = Scores(safety, expert)
        for event in measured:
            if event.accuracy is not None:
                self._accuracies[recipes[event.search, event.candidate]] = event.accuracy

    def scores(self, recipe: Recipe, with_safety: bool) -> Scores:
        """Scores of a recipe.

        Raises:
            MergeError: a loss is not finite, or the recipe cannot be applied.
        """
        known = self._seen.get((recipe, True)) or self._seen.get((recipe, with_safety))
        if known is None:
            self.evaluations += 1
            with translate_oom(f"Merging {recipe.label}"):
                self.merge.apply(recipe)
            known = self._seen[recipe, with_safety] = self.scorer.score(with_safety=with_safety)
            if not {(recipe, True), (recipe, with_safety)} & self._read:
                self._tokens += known.tokens
        losses = [part.loss for part in (known.safety, known.expert) if part is not None]
        if not all(math.isfinite(loss) for loss in losses):
            raise MergeError(f"{recipe.label} has a loss that is not finite.", code="loss-not-finite")
        return known if with_safety else known._replace(safety=None)

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


def run_search(
    plan: SearchPlan,
    evaluator: Evaluator,
    should_stop: Callable[[], bool],
    probe: Callable[[], ProbeRates] | None = None,
) -> Generator[Event, None, Recipe | None]:
    """Search, yielding every candidate when it is scored; the best is the one with the lowest `rank_key`.

    Args:
        plan: what is searched and minimized.
        evaluator: merges and scores.
        should_stop: called before each candidate.
        probe: measures the live model; called on a generation's best when it is the best so far.

    Returns:
        The recipe that the search found: the best candidate's, or for LM-Cocktail the merge of the scored parents; None
        when no candidate could be scored.

    Raises:
        RunCancelled: `should_stop` returned True.
    """
    optimizer = make_optimizer(plan)
    race = make_race(plan, evaluator)
    search = _Search(plan, evaluator, make_objective(plan), should_stop, probe, optimizer.size, race)
    while recipes := optimizer.ask():
        before = tuple(search.candidates)
        generation = yield from search.generation(recipes)
        values = plan.goal.optimizer_values(generation, before)
        optimizer.tell(values, [_terms(plan, evaluator, event) for event in generation])
    if race is not None and (finalists := race.finalists()):
        yield from search.generation(finalists, on_all_pairs=True)
    if optimizer.ended_early and search.best is not None:
        yield ended_early(plan.name, plan.phase, search.asked, optimizer)
    if search.best is not None and search.best.violation > 0:
        yield none_feasible(search.best, plan.goal)
    return optimizer.result(Recipe.model_validate(search.best.recipe) if search.best else None)


@dataclass
class _Search:
    """The state of a running search.

    Attributes:
        size: most candidates.
        best: of the candidates scored on all pairs.
        asked: candidates that the optimizer asked for.
        worked: candidates that took work, because no search had scored them before.
    """

    plan: SearchPlan
    evaluator: Evaluator
    objective: Objective
    should_stop: Callable[[], bool]
    probe: Callable[[], ProbeRates] | None
    size: int
    race: Race | None
    best: CandidateScored | None = None
    candidates: list[CandidateScored] = field(default_factory=list)
    asked: int = 0
    worked: int = 0
    generations: int = 0
    started: float = field(default_factory=time.monotonic)

    def generation(
        self, recipes: Sequence[Recipe], *, on_all_pairs: bool = False
    ) -> Generator[Event, None, list[CandidateScored]]:
        """Score recipes, and measure the best of them where it is the best so far."""
        before, scored = self.best, []
        for recipe in recipes:
            if self.should_stop():
                raise RunCancelled
            evaluations = self.evaluator.evaluations
            event = self._score(recipe, on_all_pairs)
            scored.append(event)
            yield event
            if self.plan.info.chooses_by_accuracy and not event.failure:
                yield measured(event, None, self.evaluator.accuracy(recipe))
            self._add(event)
            self.asked += not on_all_pairs
            self.worked += self.evaluator.evaluations > evaluations
            yield self._progress()
        if self.probe is not None and self.best is not None and self.best is not before:
            self.evaluator.merge.apply(Recipe.model_validate(self.best.recipe))
            yield from self._probed(self.best, self.probe)
        self.generations += 1
        return scored

    def _probed(self, best: CandidateScored, probe: Callable[[], ProbeRates]) -> Iterator[Event]:
        """The best's measurement on the probe, with a warning where it does not fit into memory."""
        rates = ProbeRates(None, None)
        try:
            rates = probe()
        except OutOfMemory as error:
            yield Warned(message=f"{error.message} Candidate {best.candidate} is not measured.", hint=error.hint)
        yield measured(best, *rates)

    def _score(self, recipe: Recipe, on_all_pairs: bool) -> CandidateScored:
        number = len(self.candidates)
        logged = self.evaluator.logged(self.plan.name, number, recipe)
        if logged is not None:
            return logged
        race = None if self.race is None else RaceOptions(self.race, on_all_pairs)
        return _score_candidate(self.plan, self.evaluator, self.objective, recipe, number, self.generations, race)

    def _add(self, event: CandidateScored) -> None:
        self.candidates.append(event)
        if self.race is not None:
            self.race.add(event)
        if not (event.failure or event.partial) and (self.best is None or event.rank_key < self.best.rank_key):
            self.best = event

    def _progress(self) -> Progress:
        """Progress with the time left, estimated from the candidates that took work."""
        pace = (time.monotonic() - self.started) / self.worked if self.worked else None
        return Progress(
            phase=self.plan.phase,
            done=self.asked,
            total=self.size,
            message=self.plan.name,
            seconds_left=None if pace is None else pace * (self.size - self.asked),
            tokens_scored=sum(candidate.tokens for candidate in self.candidates),
        )


def make_race(plan: SearchPlan, evaluator: Evaluator) -> Race | None:
    """The race of a plan with racing, where its optimizer supports it."""
    if not (plan.racing and "racing" in plan.info.options and isinstance(evaluator.scorer, NestedScorer)):
        return None
    return Race(evaluator.merge, evaluator.scorer, evaluator.increments, plan.goal, plan.alpha, plan.safety)


def _terms(plan: SearchPlan, evaluator: Evaluator, event: CandidateScored) -> Terms:
    shares = evaluator.scorer.shares
    counts = {} if shares is None else shares.counts
    return loss_terms(event.ce_safety, event.ce_expert, event.expert_losses, plan.alpha, counts)


class RaceOptions(NamedTuple):
    """A race, and whether the candidate is scored on all pairs without comparing."""

    race: Race
    on_all_pairs: bool


def _score_candidate(
    plan: SearchPlan,
    evaluator: Evaluator,
    objective: Objective,
    recipe: Recipe,
    number: int,
    generation: int,
    race: RaceOptions | None,
) -> CandidateScored:
    started, failure, tokens = time.monotonic(), "", evaluator.tokens
    value, scores, raced = PENALTY, Scores(None, None), None
    try:
        if recipe in evaluator.failed:
            raise MergeError(evaluator.failed[recipe])
        if race is None:
            scores = evaluator.scores(recipe, plan.safety)
        else:
            raced = evaluator.race(recipe, *race)
            scores = raced.scores
        value = objective(plan, scores, lambda: evaluator.accuracy(recipe))
    except MergeError as error:
        failure, scores, raced = str(error), Scores(None, None), None
        evaluator.failed[recipe] = failure
    return CandidateScored(
        search=plan.name,
        candidate=number,
        generation=generation,
        recipe=recipe.model_dump(mode="json"),
        objective=value,
        ce_safety=scores.safety.loss if scores.safety else None,
        ce_expert=scores.expert.loss if scores.expert else None,
        estimated_alignment=scores.safety.greedy_share if scores.safety else None,
        estimated_accuracy=scores.expert.greedy_share if scores.expert else None,
        seconds=time.monotonic() - started,
        failure=failure,
        violation=plan.goal.violation(scores),
        expert_losses=dict(scores.expert.by_expert) if scores.expert else {},
        samples=raced.samples if raced else None,
        all_samples=raced.all_samples if raced else None,
        tokens=evaluator.tokens - tokens,
    )
