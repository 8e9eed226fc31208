"""LM-Cocktail: one linear merge of all N models, weighted by each model's own loss (paper Eq. 3).

    w_t = E_D[-CE_t],  lambda = softmax(w / T)

D is D_safety and D_expert together, or D_expert alone. Only the N parents are scored. The equation has T = 1; the
published LM_Cocktail package uses T = 5, which weights the models more evenly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from core.contracts.results import Rate
from core.errors import SpecError
from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.optimizer import Terms

if TYPE_CHECKING:
    from core.search.scoring import Scores
    from core.search.search_plan import SearchPlan


class Cocktail:
    """Asks for the parents, and weights them by their losses.

    Args:
        genome: the pool; its method does not matter, as the result is linear.
        temperature: T of Eq. 3.

    Raises:
        SpecError: the temperature is not a positive number.
    """

    def __init__(self, genome: Genome, temperature: float = 1.0) -> None:
        _check_temperature(temperature)
        self._genome = genome.linear
        self._temperature = temperature
        self.size = len(self._genome.searched)
        self._asked = False
        self._losses: tuple[float, ...] = ()

    @property
    def ended_early(self) -> str:
        """Always empty: all parents are scored."""
        return ""

    def ask(self) -> list[Recipe]:
        """The parents at the first call, nothing afterwards."""
        recipes = [] if self._asked else list(parent_recipes(self._genome).values())
        self._asked = True
        return recipes

    def tell(self, objectives: Sequence[float], _terms: Sequence[Terms] = ()) -> None:
        """Take the parents' mean losses E_D[CE_t], nats per token."""
        self._losses = tuple(objectives)

    def result(self, best: Recipe | None) -> Recipe | None:
        """The weighted merge; None when no parent could be scored."""
        return self._genome.recipe(cocktail_weights(self._losses, self._temperature)) if best else None


def from_plan(plan: SearchPlan) -> Cocktail:
    """The optimizer of a plan."""
    return Cocktail(plan.genome, plan.temperature)


def objective(plan: SearchPlan, scores: Scores, _accuracy: Callable[[], Rate]) -> float:
    """A parent's mean loss over all pairs of the plan, nats per token."""
    return scores.mean_loss(plan.safety_share if plan.safety else 0.0)


def cocktail_weights(losses: Sequence[float], temperature: float = 1.0) -> tuple[float, ...]:
    """softmax(-loss / T): positive weights that add up to 1, larger for a lower loss.

    Args:
        losses: E_D[CE_t] of each model, finite.
        temperature: T; towards 0 only the best model has a weight, for a large T all weights are equal.

    Raises:
        SpecError: the temperature is not a positive number.
    """
    _check_temperature(temperature)
    lowest = min(losses, default=0.0)
    shares = [math.exp(-(loss - lowest) / temperature) for loss in losses]
    return tuple(share / sum(shares) for share in shares)


def parent_recipes(genome: Genome) -> dict[str, Recipe]:
    """Each member of the pool by name, as the linear merge in which it alone has a weight."""
    linear = genome.linear
    members = (genome.base, *genome.experts) if genome.base_is_member else genome.experts
    return {name: linear.recipe([float(name == other) for other in members]) for name in members}


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        message = f"LM-Cocktail's temperature is {temperature}."
        raise SpecError(message, "Set search.temperature to a number above 0.", code="bad-temperature")
