"""What a run's searches need and return: scorer, goal, their entry in `result.json`, and errors of failed searches."""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Sequence

from core.contracts.events import CandidateMeasured, CandidateScored, Event
from core.contracts.optimizers import chooses_by_accuracy, follows_gradients, searches
from core.contracts.results import ModelResult, SearchResult
from core.contracts.run_spec import RunSpec, SearchSpec
from core.contracts.search_spec import COCKTAIL_START, PLAIN_START
from core.data.training_pairs import Sample, TrainingPairs
from core.errors import MergeError
from core.jobs.live_pool import LivePool
from core.merging.recipes import Recipe
from core.models.row_budget import row_tokens
from core.runs.earlier_merge import read_merge
from core.runs.replay import Replay
from core.search.cocktail import cocktail_weights
from core.search.expert_losses import expert_shares
from core.search.genome import Genome
from core.search.gradient.backward import Differentiator
from core.search.gradient.pair_parts import Pair, divide_pairs, refuse_measured_prompts
from core.search.objectives import Goal, Kind, goal_of
from core.search.ranking import pareto_front
from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
from core.search.search_plan import SearchPlan
from core.settings import resolve_path


def make_scorer(spec: RunSpec, pool: LivePool, pairs: TrainingPairs) -> Scorer:
    """A scorer of the pool's live model on the training sets.

    Raises:
        DataError: experts have weights, and the expert of some domain pair is unknown.
    """
    shares = expert_shares(pairs.domain, spec.pool.experts, spec.search.expert_weights)
    changing, rows = pool.merge.changing, row_tokens(pool.live)
    sets = (
        TrainingSet(pool.tokenizer, pairs.safety, opening=REFUSAL_OPENING, row_tokens=rows),
        TrainingSet(pool.tokenizer, pairs.domain, opening=None, row_tokens=rows),
    )
    benign = TrainingSet(pool.tokenizer, pairs.benign, opening=None, row_tokens=rows) if pairs.benign else None
    return Scorer(pool.live, *sets, changing, shares, benign)


def make_differentiator(
    spec: RunSpec, pool: LivePool, pairs: TrainingPairs, scorer: Scorer, measured: Collection[str]
) -> Differentiator | None:
    """What gradient searches differentiate with; None where the run has none.

    Args:
        spec: the run's.
        pool: the loaded pool.
        pairs: the training pairs.
        scorer: of the pairs.
        measured: prompts on which models are measured; no pair may be one.

    Raises:
        DataError: too few pairs to hold some of them out, or a pair is a measured prompt.
    """
    if not any(map(follows_gradients, (spec.search.optimizer, *spec.search.compare))):
        return None
    sets: dict[Kind, Sequence[Sample]] = {"safety": pairs.safety, "expert": pairs.domain, "benign": pairs.benign}
    parts = divide_pairs(sets, scorer.shares, spec.search.seed)
    refuse_measured_prompts(parts, measured)

    def new_set(chosen: Sequence[Pair]) -> TrainingSet:
        made = TrainingSet(pool.tokenizer, [pair.sample for pair in chosen], opening=None)
        made.keep_lower_blocks(pool.live, scorer.blocks)
        return made

    return Differentiator(pool.live, pool.merge, parts, new_set)


def start_recipe(search: SearchSpec, genome: Genome, measured: Sequence[ModelResult]) -> Recipe | None:
    """The recipe that a gradient search starts from (`search.start`); None = equal weights.

    Raises:
        RunError: the folder is no run with a merge.
        MergeError: that merge is of other models, or a parent has no finite loss.
    """
    if search.start == PLAIN_START:
        return None
    if search.start != COCKTAIL_START:
        recipe = read_merge(resolve_path(search.start))
        genome.point_of(recipe)
        return recipe
    losses = {model.name: (model.ce_safety, model.ce_expert) for model in measured if model.role == "parent"}
    members = (genome.base, *genome.experts) if genome.base_is_member else genome.experts
    means = [_mean(losses.get(name, (None, None))) for name in members]
    if not all(map(math.isfinite, means)):
        message = "search.start is 'cocktail', but a parent has no finite loss on both training sets."
        raise MergeError(message, "Set search.start to plain.", code="no-finite-parent")
    return genome.linear.recipe(cocktail_weights(means, search.temperature))


def _mean(losses: tuple[float | None, float | None]) -> float:
    return math.nan if None in losses else sum(loss or 0.0 for loss in losses) / 2


def goal_of_search(search: SearchSpec, measured: Sequence[ModelResult]) -> Goal:
    """What the run's own search minimizes; some objectives compare with the measured parents.

    Raises:
        MergeError: the objective compares with the parents, and none of them has finite losses.
    """
    parents = [result for result in measured if result.role == "parent"]
    losses = [(parent.ce_safety, parent.ce_expert) for parent in parents]
    return goal_of(search.objective, search.safety_tolerance, losses, [parent.ce_benign for parent in parents])


def make_plan(
    spec: RunSpec,
    name: str,
    genome: Genome,
    scorer: Scorer,
    measured: Sequence[ModelResult],
) -> SearchPlan:
    """The plan of the run's own search, which is named after its optimizer, or of a baseline.

    Args:
        spec: the run's.
        name: of the search, in the table of optimizers.
        genome: the searched parameters.
        scorer: of the training pairs.
        measured: models measured so far, the parents among them.

    Raises:
        MergeError: the objective compares with the parents, and none of them has finite losses.
    """
    search = spec.search
    main, info = name == search.optimizer, searches()[name]
    row = info.optimizer
    gradients = follows_gradients(name)
    third_term = scorer.benign is not None and (gradients or spec.data.benign is not None) and not info.domain_only
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
        safety_share=scorer.safety_share,
        goal=goal_of_search(search, measured) if main else Goal(),
        beta=search.beta if third_term and row is not None and row.takes_steps else 0.0,
        start=start_recipe(search, genome, measured) if gradients else None,
        regularize=search.regularize if gradients else 0.0,
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
    """The effort of a search, and its Pareto front."""
    return SearchResult(
        name=name,
        candidates=len(candidates),
        tokens_scored=sum(candidate.tokens for candidate in candidates),
        front=tuple(candidate.candidate for candidate in pareto_front(candidates)),
    )


def no_candidate_scored(name: str, candidates: Sequence[CandidateScored]) -> MergeError:
    """The error of a search whose candidates all failed, with the first one's reason."""
    reason = candidates[0].failure if candidates else "the search proposed none."
    return MergeError(
        f"No candidate of {name} could be scored: {reason}",
        "The log has the reason of each candidate.",
        code="no-candidate-scored",
    )
