"""Bayesian optimisation: each next candidate is where a model of the losses expects most.

After a first few candidates around the start, Gaussian processes of the losses (`core.search.loss_model`) are fitted to
all that was scored, and the next candidate is the lowest point of their lower confidence bound (Srinivas and others
2010). The search is at its end when the expected improvement of two candidates in a row, asked before they were scored,
is below a tolerance. Densities of methods with a fast path are searched on a logarithmic scale.

Where many numbers are searched, a first stage looks for the few that all cells and experts can share; the search in
full starts from its best, keeps near the best it knows, and has learnt from what was scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.loss_model import LEAST, Array, LossModel
from core.search.optimizer import Terms

CAUTION = 1.0
"""Standard deviations below the median at which a point is judged."""
FLAT = 0.0005
"""Share of the best objective: the search ends when it expects less."""
LUCK = 0.15
"""Of the noise of scoring: the search ends when it expects less, as that much is more often luck than gain."""
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

_STEPS = ((0.15, 500), (0.1, 150), (0.05, 150), (0.02, 150), (0.01, 150), (0.005, 150))
"""Random points around the lowest known: standard deviations, one after the other, and how many."""

Point = list[float]


class _Chosen(NamedTuple):
    """A candidate, and what the model expects of it.

    Attributes:
        place: in the unit cube.
        promised: expected improvement in nats.
        noise: standard deviation of scoring there, in nats.
    """

    place: Point
    promised: float
    noise: float


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
        self._tolerance = self._limit = stop_when_flat or 0.0
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
        return f"no candidate promises to be better by {self._limit:.2g} nats"

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
        start = [gene.unit_start for gene in self.genome.searched]
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
        searched, small = [list(axes).index(axis) for axis in range(max(axes) + 1)], 0
        while small < PATIENCE and not (first and len(self._points) >= FIRST_STAGE):
            chosen = self._choose([[point[gene] for gene in searched] for point in self._points], near)
            yield [[chosen.place[axis] for axis in axes]]
            flat = (FIRST_FLAT if first else FLAT) * min(self._objectives)
            self._limit = max(self._tolerance, LUCK * chosen.noise, flat, LEAST)
            small = small + 1 if chosen.promised < self._limit else 0

    def _choose(self, points: list[Point], near: float) -> _Chosen:
        """The next candidate, after `points` were scored; `near` is how far from the best it may be.

        What it is to be better than is the lowest that the model expects of a scored point: the lowest value that was
        scored may be luck. While nothing could be scored, any place may be better by any amount.
        """
        if not any(self._terms):
            return _Chosen(self._random.random(len(points[0])).tolist(), math.inf, 0.0)
        model, places = LossModel(points, self._learnable()), np.array(points)
        expected = model.predict(places).median
        best = places[int(np.argmin(expected))]
        box = np.clip(best - near, 0.0, 1.0), np.clip(best + near, 0.0, 1.0)
        place = _lowest_bound(model, best, box, self._random)
        there = model.predict(place[None])
        return _Chosen(place.tolist(), float(there.improvement(float(expected.min()))[0]), float(there.noise[0]))

    def _learnable(self) -> list[Terms]:
        """Terms to be learnt: those of a failed candidate are as high as any."""
        scored = [terms for terms in self._terms if terms]
        worst = tuple(max(column) for column in zip(*scored, strict=True))
        return [terms or worst for terms in self._terms]


def _lowest_bound(model: LossModel, best: Array, box: tuple[Array, Array], random: np.random.Generator) -> Array:
    """The point of a box where the lower confidence bound is lowest, by random points, ever closer to the lowest."""
    low, high = box
    lowest = best
    anywhere = low + (high - low) * random.random((500, len(best)))
    for step, count in _STEPS:
        around = lowest + step * random.standard_normal((count, len(best)))
        places = np.clip(np.vstack([lowest[None], anywhere, around]), low, high)
        there = model.predict(places)
        lowest = places[int(np.argmin(there.median - CAUTION * there.spread))]
        anywhere = anywhere[:0]
    return lowest
