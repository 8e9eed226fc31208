"""Makes the optimizer of a plan: gradient search, or Bayesian optimization where there are few parameters."""

from __future__ import annotations

from core.search.bayes import Bayes
from core.search.bayes import from_plan as bayes_from_plan
from core.search.gradient.descent import Descent
from core.search.search_plan import SearchPlan

FEW = 4
"""Parameters up to which Bayesian optimization needs no more work than gradients."""


def from_plan(plan: SearchPlan) -> Descent | Bayes:
    """The optimizer of a plan; Bayesian optimization with at most `FEW` parameters and a weighted objective."""
    if len(plan.genome.searched) <= FEW and plan.goal.mode == "weighted":
        return bayes_from_plan(plan)
    return Descent(plan.genome, plan.steps, plan.weights, plan.seed, plan.start, plan.regularize, plan.goal)
