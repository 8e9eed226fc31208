"""The search of a method without parameters to search (Model Stock, Karcher mean, ...): its one merge."""

from __future__ import annotations

from collections.abc import Sequence

from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.optimizer import Terms


class FixedRecipe:
    """Asks for one recipe, once.

    Args:
        genome: the pool and the method, without searched parameters.
    """

    def __init__(self, genome: Genome) -> None:
        self._recipes = [genome.recipe([])]
        self.size = 1

    @property
    def ended_early(self) -> str:
        """Always empty: there is one candidate."""
        return ""

    def ask(self) -> list[Recipe]:
        """The recipe at the first call, nothing afterwards."""
        recipes, self._recipes = self._recipes, []
        return recipes

    def tell(self, objectives: Sequence[float], _terms: Sequence[Terms] = ()) -> None:
        """Ignore the objective: there is no next candidate."""

    def result(self, best: Recipe | None) -> Recipe | None:
        """The recipe; None when it could not be scored."""
        return best
