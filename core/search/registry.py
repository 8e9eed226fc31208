"""What one search of a run minimises, the names it may have, and the optimiser behind each."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.contracts.events import Phase
from core.contracts.run_spec import Optimizer as OptimizerName
from core.search.bayes import Bayes
from core.search.cocktail import Cocktail
from core.search.evomm import EvoMM
from core.search.fixed_recipe import FixedRecipe
from core.search.genome import Genome
from core.search.grid import Grid
from core.search.objectives import Goal
from core.search.optimizer import Optimizer
from core.search.surrogate import EvoMMSurrogate

SEARCHES: dict[str, tuple[OptimizerName, bool]] = {
    "evomm": ("evomm", True),
    "evomm_expert_only": ("evomm", False),
    "evomm_surrogate": ("evomm_surrogate", True),
    "bayes": ("bayes", True),
    "cocktail": ("cocktail", True),
    "cocktail_expert_only": ("cocktail", False),
    "grid": ("grid", True),
}
"""Who searches under a name, and whether with the safety data (a grid is chosen by accuracy either way)."""


@dataclass(frozen=True)
class SearchPlan:
    """What one search minimises.

    Attributes:
        name: the optimiser's, or a baseline's name.
        genome: the searched numbers.
        steps: candidates at most, of EvoMM and Bayesian optimisation.
        alpha: weight of CE_expert (EvoMM).
        safety: False leaves the safety data out.
        seed: of the optimiser.
        phase: the run's phase it belongs to.
        optimizer: who proposes the candidates.
        stop_when_flat: their tolerance for ending early, in nats.
        temperature: LM-Cocktail's T.
        safety_share: D_safety's share of all pairs (LM-Cocktail).
        goal: how their candidates are judged by their losses.
        racing: whether candidates are scored on nested subsets first, (EvoMM); takes a `NestedScorer`.
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
    goal: Goal = field(default_factory=Goal)
    racing: bool = False


def make_optimizer(plan: SearchPlan) -> Optimizer:
    """The optimiser that a plan names, at its beginning."""
    match plan.optimizer:
        case "evomm" | "evomm_surrogate" | "bayes" if not plan.genome.searched:
            return FixedRecipe(plan.genome)
        case "evomm":
            return EvoMM(plan.genome, plan.steps, plan.seed, plan.stop_when_flat)
        case "evomm_surrogate":
            return EvoMMSurrogate(plan.genome, plan.steps, plan.seed, plan.stop_when_flat)
        case "bayes":
            return Bayes(plan.genome, plan.steps, plan.seed, plan.stop_when_flat)
        case "grid":
            return Grid(plan.genome)
        case "cocktail":
            return Cocktail(plan.genome, plan.temperature)
