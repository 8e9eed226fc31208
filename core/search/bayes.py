"""Bayesian optimisation: each next candidate is where a model of the losses expects most.

After a first few candidates around the start, Gaussian processes of the losses (`core.search.loss_model`) are fitted to
all that was scored, and the next candidate is the lowest point of their lower confidence bound (Srinivas and others
2010). The search is at its end when the expected improvement of two candidates in a row, asked before they were scored,
is below a tolerance. Densities are searched on a logarithmic scale.

Where many numbers are searched, a first stage looks for the few that all cells and experts can share; the search in
full starts from its best, keeps near the best it knows, and has learnt from what was scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.loss_model import Array, LossModel
from core.search.protocol import Terms

CAUTION = 0.5
"""Standard deviations below the median at which a point is judged."""
FLAT = 0.0005
"""Share of the best objective: the search ends when it expects less."""
PATIENCE = 2
"""Candidates in a row that promise little before the search ends."""
FIRST_SPREAD = 0.2
"""Standard deviation of the first candidates around the start, as a share of each gene's range."""
FIRST_STAGE = 15
"""Candidates of the first stage at most."""
FIRST_FLAT = 0.005
"""Share of the best objective: the first stage ends when it expects less."""
NEAR = 0.1
"""How far from the best a candidate of the second stage may be, as a share of each gene's range."""

Point = list[float]


class Bayes:
    """Bayesian optimisation over a genome's unit cube, minimising.

    Args:
        genome: the searched numbers.
        steps: candidates at most.
        seed: the same seed and the same told values give the same candidates.
        stop_when_flat: end earlier, when no candidate promises to be better by this many nats.
    """

    def __init__(self, genome: Genome, steps: int, seed: int, stop_when_flat: float | None = None) -> None:
        self.genome = replace(genome, log_densities=True)
        self.size = steps
        self._left = steps
        self._tolerance = stop_when_flat or 0.0
        self._random = np.random.default_rng(seed)
        self._points: list[Point] = []
        self._objectives: list[float] = []
        self._terms: list[Terms] = []
        self._asking = self._search()
        self._next = next(self._asking)

    @property
    def ended_early(self) -> str:
        """Which rule ended the search before its budget; empty while it goes on or when all was used."""
        if self._left <= 0 or self._next:
            return ""
        return f"no candidate promises to be better by {self._limit(FLAT):.2g} nats"

    def ask(self) -> list[Recipe]:
        """Recipes that have to be scored next; empty when the budget or the search ends."""
        return [self.genome.recipe(point) for point in self._next[: max(self._left, 0)]]

    def tell(self, objectives: Sequence[float], terms: Sequence[Terms]) -> None:
        """Objectives of the recipes last asked for, in their order, and the losses that add up to each.

        Args:
            objectives: all finite.
            terms: of each recipe; none where it failed.
        """
        self._left -= len(objectives)
        self._points += self._next[: len(objectives)]
        self._objectives += objectives
        self._terms += terms
        if self._left > 0:
            self._next = next(self._asking, [])

    def result(self, best: Recipe | None) -> Recipe | None:
        """The scored candidate with the lowest objective."""
        return best

    def _search(self) -> Iterator[list[Point]]:
        """Yields points to be scored; what they gave is there when it goes on."""
        axes = self.genome.shared_axes
        start = [gene.unit_start for gene in self.genome.genes]
        shared = [axes.index(axis) for axis in range(max(axes) + 1)]
        yield [[near[axis] for axis in axes] for near in self._around([start[gene] for gene in shared])]
        if len(shared) == len(axes):
            yield from self._stage(axes)
            return
        yield from self._stage(axes, first=True)
        yield from self._stage(tuple(range(len(axes))), near=NEAR)

    def _around(self, start: Point) -> list[Point]:
        """The start, and points spread evenly around it."""
        from scipy.stats import norm, qmc

        count = len(start)
        even = qmc.Sobol(count, rng=self._random).random_base2(count.bit_length())[: count + 1]
        spread = start + FIRST_SPREAD * norm.ppf(0.01 + 0.98 * even)
        return [start, *np.clip(spread, 0.0, 1.0).tolist()]

    def _stage(self, axes: Sequence[int], *, first: bool = False, near: float = 1.0) -> Iterator[list[Point]]:
        """One candidate after another, until they promise little.

        Args:
            axes: for each gene the axis whose value it has.
            first: of two stages.
            near: how far from the best a candidate may be.
        """
        genes, small = [list(axes).index(axis) for axis in range(max(axes) + 1)], 0
        while small < PATIENCE and not (first and len(self._points) >= FIRST_STAGE):
            limit = self._limit(FIRST_FLAT if first else FLAT)
            place, promised = self._most_promising([[point[gene] for gene in genes] for point in self._points], near)
            yield [[place[axis] for axis in axes]]
            small = small + 1 if promised < limit else 0

    def _limit(self, share: float) -> float:
        """Nats that are too few to go on for."""
        return max(self._tolerance, share * min(self._objectives))

    def _most_promising(self, points: list[Point], near: float) -> tuple[Point, float]:
        """The lowest point of the lower confidence bound, and its expected improvement in nats."""
        best = int(np.argmin(self._objectives))
        model, centre = LossModel(points, self._learnable()), np.array(points[best])
        low, high = np.clip(centre - near, 0.0, 1.0), np.clip(centre + near, 0.0, 1.0)

        def bound(places: Array) -> Array:
            median, spread = model.predict(places)
            lowest: Array = median - CAUTION * spread
            return lowest

        anywhere = low + (high - low) * self._random.random((500, len(centre)))
        around = [centre + step * self._random.standard_normal((size, len(centre))) for step, size in _STEPS]
        places = np.clip(np.vstack([anywhere, *around]), low, high)
        lowest = places[int(np.argmin(bound(places)))]
        for step in _ZOOM:
            closer = lowest + step * self._random.standard_normal((150, len(centre)))
            places = np.clip(np.vstack([lowest[None], closer]), low, high)
            lowest = places[int(np.argmin(bound(places)))]
        promised = model.predict(lowest[None]).improvement(self._objectives[best])
        return lowest.tolist(), float(promised[0])

    def _learnable(self) -> list[Terms]:
        """Terms to be learnt: those of a failed candidate are as high as any."""
        scored = [terms for terms in self._terms if terms]
        worst = tuple(max(column) for column in zip(*scored, strict=True)) or (1.0,)
        return [terms or worst for terms in self._terms]


_STEPS = ((0.15, 300), (0.03, 200))
"""Random points around the best: their standard deviation, and how many."""
_ZOOM = (0.1, 0.05, 0.02, 0.01, 0.005)
"""Standard deviations of random points around the lowest, one after the other."""
