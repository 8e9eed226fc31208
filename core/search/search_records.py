"""The records of a search's work: a scored candidate, or a differentiated step, as events."""

from __future__ import annotations

import time
from typing import Any

from core.contracts.events import CandidateScored, GradientStep
from core.errors import MergeError
from core.merging.recipes import Recipe
from core.search.evaluator import Evaluator
from core.search.gradient.backward import Differentiator
from core.search.gradient.descent import Descent, Step
from core.search.scoring import Scores
from core.search.search_plan import Objective, SearchPlan

PENALTY = 1e6
"""Objective of a candidate that could not be scored; far above any real one, and finite for CMA-ES."""


def score_candidate(
    plan: SearchPlan,
    evaluator: Evaluator,
    objective: Objective,
    recipe: Recipe,
    number: int,
    generation: int,
) -> CandidateScored:
    """Merge and score a recipe; one that fails gets a finite penalty and its reason."""
    started, failure, tokens = time.monotonic(), "", evaluator.tokens
    value, scores = PENALTY, Scores(None, None)
    try:
        if recipe in evaluator.failed:
            raise MergeError(evaluator.failed[recipe])
        scores = evaluator.scores(recipe, plan.safety)
        value = objective(plan, scores, lambda: evaluator.accuracy(recipe))
    except MergeError as error:
        failure, scores = str(error), Scores(None, None)
        evaluator.failed[recipe] = failure
    return CandidateScored(
        search=plan.name,
        candidate=number,
        generation=generation,
        recipe=recipe.model_dump(mode="json"),
        objective=value,
        ce_safety=scores.safety.loss if scores.safety else None,
        ce_expert=scores.expert.loss if scores.expert else None,
        ce_benign=scores.benign.loss if scores.benign else None,
        estimated_alignment=scores.safety.greedy_share if scores.safety else None,
        estimated_accuracy=scores.expert.greedy_share if scores.expert else None,
        seconds=time.monotonic() - started,
        failure=failure,
        violation=plan.goal.violation(scores),
        expert_losses=dict(scores.expert.by_expert) if scores.expert else {},
        tokens=evaluator.tokens - tokens,
    )


def differentiate_step(
    plan: SearchPlan, optimizer: Descent, step: Step, number: int, differentiator: Differentiator
) -> GradientStep:
    """Merge and differentiate a step's point; a failure rejects the step."""
    started, weights, facts = time.monotonic(), step.weights or plan.weights, dict[str, Any]()
    try:
        found = differentiator.differentiate(optimizer.genome, list(step.point), weights, step.batch)
        facts = {"losses": found.losses, "gradient": found.gradient, "tokens": found.tokens}
        value, failure = found.value, ""
    except MergeError as error:
        value, failure = None, error.message
    return GradientStep(
        search=plan.name,
        step=number,
        batch=step.batch,
        objective=value,
        seconds=time.monotonic() - started,
        failure=failure,
        **facts,
    )
