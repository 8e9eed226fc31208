"""`SearchPlan`: one search of a run, with what it changes and what it minimizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from core.contracts.events import Phase
from core.contracts.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS, OptimizerInfo
from core.contracts.results import Rate
from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.objectives import Goal, TermWeights

if TYPE_CHECKING:
    from core.search.scoring import Scores


@dataclass(frozen=True)
class SearchPlan:
    """One search of a run.

    Attributes:
        name: the optimizer's, or a baseline's name.
        genome: the searched parameters.
        steps: most candidates of an optimizer that takes steps.
        alpha: weight of CE_expert.
        safety: False leaves the safety data out.
        seed: of the optimizer.
        phase: the run's phase that the search belongs to.
        optimizer: name in the table of optimizers.
        stop_when_flat: tolerance for ending early, in nats.
        temperature: LM-Cocktail's T.
        safety_share: D_safety's share of all pairs (LM-Cocktail).
        goal: how candidates are judged by their losses.
        beta: weight of CE_benign; 0 leaves it out.
        start: recipe that a gradient search starts from; None = the plain merge.
        regularize: pull of a gradient search towards equal weights.
    """

    name: str
    genome: Genome
    steps: int
    alpha: float
    safety: bool
    seed: int
    phase: Phase = "search"
    optimizer: str = DEFAULT_OPTIMIZER
    stop_when_flat: float | None = None
    temperature: float = 1.0
    safety_share: float = 0.5
    goal: Goal = field(default_factory=Goal)
    beta: float = 0.0
    start: Recipe | None = None
    regularize: float = 0.0

    @property
    def weights(self) -> TermWeights:
        """Weight of each loss in what is minimized."""
        return self.goal.weights(self.alpha, self.safety, self.beta)

    @property
    def info(self) -> OptimizerInfo:
        """The optimizer's row in the table."""
        return OPTIMIZERS[self.optimizer]


class Objective(Protocol):
    """Gives the value that an optimizer minimizes; `OptimizerInfo.objective` names one."""

    def __call__(self, plan: SearchPlan, scores: Scores, accuracy: Callable[[], Rate], /) -> float:
        """The minimized value of one candidate.

        Args:
            plan: the search.
            scores: of the candidate on the training pairs.
            accuracy: measures the candidate on the probe questions.
        """
        ...


def loss_objective(plan: SearchPlan, scores: Scores, _accuracy: Callable[[], Rate]) -> float:
    """The plan's goal over both losses, in nats per token."""
    return plan.goal.objective(scores, plan.alpha, plan.safety, plan.beta)
