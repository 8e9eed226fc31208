"""Makes the optimizer and the objective of a plan from the import paths in the table of optimizers."""

from __future__ import annotations

import importlib
from typing import Any, cast

from core.search.fixed_recipe import FixedRecipe
from core.search.optimizer import Optimizer
from core.search.search_plan import Objective, SearchPlan


def make_optimizer(plan: SearchPlan) -> Optimizer:
    """A new optimizer for a plan; where a search by losses has no parameter to search, one that tries one recipe."""
    if plan.info.takes_steps and not plan.genome.searched:
        return FixedRecipe(plan.genome)
    return cast(Optimizer, resolve(plan.info.factory)(plan))


def make_objective(plan: SearchPlan) -> Objective:
    """The function that gives the value which the plan's optimizer minimizes."""
    return cast(Objective, resolve(plan.info.objective))


def resolve(path: str) -> Any:
    """The object at an import path `module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
