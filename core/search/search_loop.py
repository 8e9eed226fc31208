"""One search from start to end: ask, merge, score, tell, and measure the best of each generation.

Candidates that several searches share (the first generation of the same seed, the plain merge) are merged and scored
once. A candidate that fails gets a finite penalty, and its reason in the log; the search goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

from core.contracts.events import CandidateScored, Event, Progress, Warned
from core.contracts.results import ProbeRates
from core.errors import MergeError, OutOfMemory, RunCancelled
from core.merging.recipes import Recipe
from core.search.evaluator import Evaluator
from core.search.gradient.backward import Differentiator
from core.search.gradient.descent import Answer, Descent, Step
from core.search.gradient.pair_parts import PairParts, loss_on
from core.search.objectives import loss_terms
from core.search.optimizer import Terms
from core.search.registry import make_objective, make_optimizer
from core.search.search_messages import ended_early, measured, none_feasible, step_rejected
from core.search.search_plan import Objective, SearchPlan
from core.search.search_records import differentiate_step, score_candidate


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
    search = _Search(plan, evaluator, make_objective(plan), should_stop, probe, optimizer.size)
    if isinstance(optimizer, Descent):
        yield from _follow_gradients(optimizer, search)
    while recipes := optimizer.ask():
        before = tuple(search.candidates)
        generation = yield from search.generation(recipes)
        values = plan.goal.optimizer_values(generation, before)
        optimizer.tell(values, [_terms(plan, evaluator, event) for event in generation])
    if optimizer.ended_early and search.best is not None:
        done = math.ceil(optimizer.spent) if isinstance(optimizer, Descent) else search.asked
        yield ended_early(plan.name, plan.phase, done, optimizer)
    if search.best is not None and search.best.violation > 0:
        yield none_feasible(search.best, plan.goal)
    return optimizer.result(Recipe.model_validate(search.best.recipe) if search.best else None)


def _follow_gradients(optimizer: Descent, search: _Search) -> Iterator[Event]:
    """Answer the steps of a gradient search until it ends.

    Raises:
        MergeError: the run cannot differentiate (code `no-derivatives`).
    """
    differentiator = search.evaluator.differentiator
    if differentiator is None:
        raise MergeError("This run cannot differentiate its losses.", code="no-derivatives")
    search.parts = differentiator.parts
    optimizer.divide(differentiator.batches)
    step = optimizer.next()
    while step is not None:
        if search.should_stop():
            raise RunCancelled
        if step.weights is None:
            (event,) = yield from search.generation([optimizer.recipe(step)])
            answer = Answer(rank=event.rank_key, failed=bool(event.failure))
        else:
            answer = yield from search.differentiate(optimizer, step, differentiator)
        step = optimizer.next(answer)
        search.asked = min(optimizer.size, math.ceil(optimizer.spent))
        yield search.progress()


@dataclass
class _Search:
    """The state of a running search.

    Attributes:
        size: most candidates.
        best: the candidate with the lowest `rank_key` so far.
        asked: candidates that the optimizer asked for.
        worked: candidates that took work, because no search had scored them before.
        parts: the pairs of a gradient search, divided; None for other searches.
        steps: differentiated steps.
    """

    plan: SearchPlan
    evaluator: Evaluator
    objective: Objective
    should_stop: Callable[[], bool]
    probe: Callable[[], ProbeRates] | None
    size: int
    best: CandidateScored | None = None
    candidates: list[CandidateScored] = field(default_factory=list)
    asked: int = 0
    worked: int = 0
    generations: int = 0
    parts: PairParts | None = None
    steps: int = 0
    started: float = field(default_factory=time.monotonic)

    def generation(self, recipes: Sequence[Recipe]) -> Generator[Event, None, list[CandidateScored]]:
        """Score recipes, and measure the best of them where it is the best so far."""
        before, scored = self.best, []
        for recipe in recipes:
            if self.should_stop():
                raise RunCancelled
            evaluations = self.evaluator.evaluations
            event = self._score(recipe)
            scored.append(event)
            yield event
            if self.plan.info.chooses_by_accuracy and not event.failure:
                yield measured(event, None, self.evaluator.accuracy(recipe))
            self._add(event)
            self.asked += 1
            self.worked += self.evaluator.evaluations > evaluations
            if self.parts is None:
                yield self.progress()
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

    def _score(self, recipe: Recipe) -> CandidateScored:
        number = len(self.candidates)
        logged = self.evaluator.logged(self.plan.name, number, recipe)
        if logged is not None:
            return logged
        event = score_candidate(self.plan, self.evaluator, self.objective, recipe, number, self.generations)
        return event if self.parts is None or event.failure else self._on_parts(event, recipe, self.parts)

    def _on_parts(self, event: CandidateScored, recipe: Recipe, parts: PairParts) -> CandidateScored:
        """A candidate's objective on the training pairs, and on the pairs that a gradient search holds out."""
        scores = self.evaluator.scores(recipe, self.plan.safety, per_sample=True)
        weights = self.plan.weights
        values = {"objective": loss_on(parts.training, scores, weights)}
        return event.model_copy(update=values | {"held_out": loss_on(parts.held_out, scores, weights)})

    def differentiate(
        self, optimizer: Descent, step: Step, differentiator: Differentiator
    ) -> Generator[Event, None, Answer]:
        """Answer a step that needs a gradient; a gradient that is not finite rejects the step."""
        number, self.steps = self.steps, self.steps + 1
        event = self.evaluator.logged_step(self.plan.name, number)
        if event is None:
            event = differentiate_step(self.plan, optimizer, step, number, differentiator)
            self.worked += 1
        yield event
        if event.failure or event.objective is None:
            yield step_rejected(event)
            return Answer(failed=True)
        return Answer(event.objective, event.gradient, event.losses)

    def _add(self, event: CandidateScored) -> None:
        self.candidates.append(event)
        if not event.failure and (self.best is None or event.rank_key < self.best.rank_key):
            self.best = event

    def progress(self) -> Progress:
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


def _terms(plan: SearchPlan, evaluator: Evaluator, event: CandidateScored) -> Terms:
    shares = evaluator.scorer.shares
    counts = {} if shares is None else shares.counts
    benign = plan.beta * event.ce_benign if plan.beta and event.ce_benign is not None else None
    return loss_terms(event.ce_safety, event.ce_expert, event.expert_losses, plan.alpha, counts, benign)
