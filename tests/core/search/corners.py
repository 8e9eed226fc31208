"""An optimizer as a test adds it: two candidates at the corners of the unit cube, chosen by their losses."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.optimizers import OptimizerInfo
from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.optimizer import Terms
from core.search.search_plan import SearchPlan


class Corners:
    """Asks for both ends of the unit cube's diagonal, once."""

    def __init__(self, genome: Genome) -> None:
        self._recipes = [genome.recipe([end] * len(genome.searched)) for end in (0.0, 1.0)]
        self.size = 2

    @property
    def ended_early(self) -> str:
        return ""

    def ask(self) -> list[Recipe]:
        recipes, self._recipes = self._recipes, []
        return recipes

    def tell(self, objectives: Sequence[float], _terms: Sequence[Terms] = ()) -> None:
        pass

    def result(self, best: Recipe | None) -> Recipe | None:
        return best


def from_plan(plan: SearchPlan) -> Corners:
    return Corners(plan.genome)


ROW = OptimizerInfo(
    name="corners",
    title="Two corners",
    short="Corners",
    sentence="tries the two extremes",
    factory="tests.core.search.corners:from_plan",
    options=frozenset({"steps", "alpha"}),
    mention="two corners",
    domain_only_title="Two corners, domain data",
    domain_only_short="Corners, domain",
)
