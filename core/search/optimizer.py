"""The optimizer protocol: ask for recipes, tell their objectives. Optimizers do no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.merging.recipes import Recipe

Terms = tuple[float, ...]
"""Losses of one candidate, each times its weight, in nats per token; their sum is the candidate's objective."""


class Optimizer(Protocol):
    """Proposes recipes, minimizing. `core.search.search_loop.run_search` merges and scores them.

    Attributes:
        size: most candidates.
        ended_early: the rule that ended the search before `size` candidates; empty otherwise.
    """

    size: int

    @property
    def ended_early(self) -> str: ...

    def ask(self) -> list[Recipe]:
        """The next recipes to score together, a generation; empty at the end."""
        ...

    def tell(self, objectives: Sequence[float], terms: Sequence[Terms], /) -> None:
        """Objectives of the recipes that `ask` returned last, in their order; all must be finite.

        Args:
            objectives: (n,) nats per token, or another objective mode's values.
            terms: n rows whose sums are the objectives; a row is empty where the candidate failed.
        """
        ...

    def result(self, best: Recipe | None) -> Recipe | None:
        """The recipe that the search found; None when no candidate could be scored.

        Args:
            best: the candidate with the lowest objective.
        """
        ...
