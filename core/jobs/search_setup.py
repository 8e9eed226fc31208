"""What a run's searches need and return: scorer, goal, their entry in `result.json`, and errors of failed searches."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from core.contracts.events import CandidateMeasured, CandidateScored, Event
from core.contracts.optimizers import chooses_by_accuracy, searches
from core.contracts.results import ModelResult, SearchResult
from core.contracts.run_spec import RunSpec, SearchSpec
from core.data.training_pairs import Sample
from core.errors import MergeError
from core.jobs.live_pool import LivePool
from core.merging.recipes import Recipe
from core.runs.replay import Replay
from core.search.expert_losses import expert_shares
from core.search.genome import Genome
from core.search.nested_subsets import NestedScorer, NestedSet
from core.search.objectives import Goal, goal_of
from core.search.ranking import pareto_front
from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
from core.search.search_plan import SearchPlan


def make_scorer(spec: RunSpec, pool: LivePool, safety: Sequence[Sample], domain: Sequence[Sample]) -> Scorer[Any]:
    """A scorer of the pool's live model on both training sets, in nested subsets when candidates are raced.

    Raises:
        DataError: experts have weights, and the expert of some domain pair is unknown.
    """
    shares = expert_shares(domain, spec.pool.experts, spec.search.expert_weights)
    changing = pool.merge.changing
    if spec.search.racing:
        refused = NestedSet(pool.tokenizer, safety, REFUSAL_OPENING)
        answered = NestedSet(pool.tokenizer, domain, None, shares.owners)
        return NestedScorer(pool.live, refused, answered, changing, shares)
    sets = (
        TrainingSet(pool.tokenizer, safety, opening=REFUSAL_OPENING),
        TrainingSet(pool.tokenizer, domain, opening=None),
    )
    return Scorer(pool.live, *sets, changing, shares)


def goal_of_search(search: SearchSpec, measured: Sequence[ModelResult]) -> Goal:
    """What the run's own search minimizes; some objectives compare with the measured parents.

    Raises:
        MergeError: the objective compares with the parents, and none of them has finite losses.
    """
    parents = [(result.ce_safety, result.ce_expert) for result in measured if result.role == "parent"]
    return goal_of(search.objective, search.safety_tolerance, parents)


def make_plan(
    search: SearchSpec, name: str, genome: Genome, safety_share: float, measured: Sequence[ModelResult]
) -> SearchPlan:
    """The plan of the run's own search, which is named after its optimizer, or of a baseline.

    Args:
        search: the run's.
        name: of the search, in the table of optimizers.
        genome: the searched parameters.
        safety_share: D_safety's share of all pairs.
        measured: models measured so far, the parents among them.

    Raises:
        MergeError: the objective compares with the parents, and none of them has finite losses.
    """
    main, info = name == search.optimizer, searches()[name]
    return SearchPlan(
        name=name,
        genome=genome,
        steps=search.steps,
        alpha=search.alpha,
        safety=not info.domain_only and (search.safety or not main),
        seed=search.seed,
        phase="search" if main else "baselines",
        optimizer=search.optimizer if info.optimizer is None else info.optimizer.name,
        stop_when_flat=search.stop_when_flat,
        temperature=search.temperature,
        safety_share=safety_share,
        goal=goal_of_search(search, measured) if main else Goal(),
        racing=search.racing,
    )


def accuracy_measurements(replay: Replay) -> list[CandidateMeasured]:
    """Accuracies that earlier searches chose by, in the order of the log."""
    names = filter(chooses_by_accuracy, searches())
    return [event for name in names for event in replay.measured_candidates(name)]


def collect_candidates(
    search: Generator[Event, None, Recipe | None], into: list[CandidateScored]
) -> Generator[Event, None, Recipe | None]:
    """Pass a search's events on and append its candidates to a list; returns what the search returns."""
    while True:
        try:
            event = next(search)
        except StopIteration as end:
            best: Recipe | None = end.value
            return best
        if isinstance(event, CandidateScored):
            into.append(event)
        yield event


def search_result(name: str, candidates: Sequence[CandidateScored]) -> SearchResult:
    """The effort of a search, and its Pareto front among the candidates scored on all pairs."""
    front = pareto_front([candidate for candidate in candidates if not candidate.partial])
    return SearchResult(
        name=name,
        candidates=len(candidates),
        tokens_scored=sum(candidate.tokens for candidate in candidates),
        front=tuple(candidate.candidate for candidate in front),
    )


def no_candidate_scored(name: str, candidates: Sequence[CandidateScored]) -> MergeError:
    """The error of a search whose candidates all failed, with the first one's reason."""
    reason = candidates[0].failure if candidates else "the search proposed none."
    return MergeError(
        f"No candidate of {name} could be scored: {reason}",
        "The log has the reason of each candidate.",
        code="no-candidate-scored",
    )
