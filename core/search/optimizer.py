"""What a search is driven by: an optimiser that asks for recipes and is told how they did, without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.merging.recipes import Recipe

Terms = tuple[float, ...]
"""Losses of one candidate that add up to its objective, each times its share, in nats per token."""


class Optimizer(Protocol):
    """Proposes recipes, minimising. `core.search.search_loop.run_search` merges, scores and tells.

    Attributes:
        size: candidates at most.
        ended_early: why it asks for no more although its size is not reached; empty otherwise.
    """

    size: int

    @property
    def ended_early(self) -> str: ...

    def ask(self) -> list[Recipe]:
        """The next recipes to be scored together, a generation; empty at the end."""
        ...

    def tell(self, objectives: Sequence[float], terms: Sequence[Terms], /) -> None:
        """Objectives of the recipes last asked for, in their order; all must be finite.

        Args:
            objectives: (n,) nats per token, or what stands for them in another mode.
            terms: n rows, what each objective is the sum of; an empty row where the candidate failed.
        """
        ...

    def result(self, best: Recipe | None) -> Recipe | None:
        """What the search found, given its candidate with the lowest objective; None when nothing could be scored."""
        ...
