"""Bayesian optimization: each next candidate is where a model of the losses expects the most gain.

After a few first candidates around the start, Gaussian processes of the losses (`core.search.loss_model`) are fitted to
all scored candidates, and the next candidate is the minimum of their lower confidence bound (Srinivas et al. 2010). The
search ends when the expected improvement of two candidates in a row, computed before they were scored, is below a
tolerance. Densities of methods with a fast path are searched on a logarithmic scale.

Where there are many parameters, a first stage searches the few that all groups and experts can share. The full search
starts from its best candidate, stays near the best one so far, and keeps what was scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.loss_model import LEAST, Array, LossModel
from core.search.optimizer import Terms

if TYPE_CHECKING:
    from core.search.search_plan import SearchPlan

CAUTION = 1.0
"""Standard deviations below the median at which a point is judged."""
FLAT = 0.0005
"""The search ends when it expects less gain than this share of the best objective."""
LUCK = 0.15
"""The search ends when it expects less gain than this share of the scoring noise: so little is mostly luck."""
PATIENCE = 2
"""Candidates in a row with little expected gain that end the search."""
FIRST_SPREAD = 0.2
"""Standard deviation of the first candidates around the start, as a share of each parameter's range."""
FIRST_STAGE = 15
"""Most candidates of the first stage."""
FIRST_FLAT = 0.005
"""The first stage ends when it expects less gain than this share of the best objective."""
NEAR = 0.1
"""Largest distance from the best for a candidate of the second stage, as a share of each parameter's range."""

_STEPS = ((0.15, 500), (0.1, 150), (0.05, 150), (0.02, 150), (0.01, 150), (0.005, 150))
"""Random points around the lowest one so far: standard deviations in turn, and how many points."""

Point = list[float]


class _Proposal(NamedTuple):
    """A candidate, and what the model expects of it.

    Attributes:
        point: in the unit cube.
        improvement: expected improvement in nats.
        noise: standard deviation of scoring there, in nats.
    """

    point: Point
    improvement: float
    noise: float


class Bayes:
    """Bayesian optimization over a genome's unit cube, minimizing.

    Args:
        genome: the searched parameters.
        steps: most candidates.
        seed: the same seed and the same objectives give the same candidates.
        stop_when_flat: end earlier, when no candidate is expected to be better by this many nats.
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
        self._proposals = self._search()
        self._next = next(self._proposals)

    @property
    def ended_early(self) -> str:
        """The rule that ended the search before its budget; empty while it runs or when the budget is spent."""
        if self._left <= 0 or self._next:
            return ""
        return f"no candidate is expected to be better by {self._limit:.2g} nats"

    def ask(self) -> list[Recipe]:
        """Recipes to score next; empty when the budget is spent or the search has ended."""
        return [self.genome.recipe(point) for point in self._next[: max(self._left, 0)]]

    def tell(self, objectives: Sequence[float], terms: Sequence[Terms]) -> None:
        """Objectives of the recipes that `ask` returned last, in their order, and the losses that add up to each.

        Args:
            objectives: all finite.
            terms: of each recipe; empty where it failed.
        """
        self._left -= len(objectives)
        self._points += self._next[: len(objectives)]
        self._objectives += objectives
        self._terms += terms
        if self._left > 0:
            self._next = next(self._proposals, [])

    def result(self, best: Recipe | None) -> Recipe | None:
        """The scored candidate with the lowest objective."""
        return best

    def _search(self) -> Iterator[list[Point]]:
        """Yield points to score; their objectives and terms are stored before it continues."""
        axes = self.genome.shared_axes
        start = [parameter.unit_start for parameter in self.genome.searched]
        shared = [axes.index(axis) for axis in range(max(axes) + 1)]
        yield [[near[axis] for axis in axes] for near in self._around([start[number] for number in shared])]
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
        """Yield one candidate after another, until the expected improvement is small.

        Args:
            axes: for each parameter the axis whose value it has.
            first: whether this is the first of two stages.
            near: largest distance of a candidate from the best.
        """
        searched, small = [list(axes).index(axis) for axis in range(max(axes) + 1)], 0
        while small < PATIENCE and not (first and len(self._points) >= FIRST_STAGE):
            proposal = self._propose([[point[number] for number in searched] for point in self._points], near)
            yield [[proposal.point[axis] for axis in axes]]
            flat = (FIRST_FLAT if first else FLAT) * min(self._objectives)
            self._limit = max(self._tolerance, LUCK * proposal.noise, flat, LEAST)
            small = small + 1 if proposal.improvement < self._limit else 0

    def _propose(self, points: list[Point], near: float) -> _Proposal:
        """The next candidate after `points` were scored, at most `near` from the best.

        Improvement counts from the lowest value that the model expects at a scored point, because the lowest scored
        value may be luck. While no candidate could be scored, a random point is proposed.
        """
        if not any(self._terms):
            return _Proposal(self._random.random(len(points[0])).tolist(), math.inf, 0.0)
        model, places = LossModel(points, self._terms_to_fit()), np.array(points)
        expected = model.predict(places).median
        best = places[int(np.argmin(expected))]
        box = np.clip(best - near, 0.0, 1.0), np.clip(best + near, 0.0, 1.0)
        point = _lowest_bound(model, best, box, self._random)
        there = model.predict(point[None])
        improvement = float(there.improvement(float(expected.min()))[0])
        return _Proposal(point.tolist(), improvement, float(there.noise[0]))

    def _terms_to_fit(self) -> list[Terms]:
        """Terms of all candidates; a failed one gets the highest value of each term."""
        scored = [terms for terms in self._terms if terms]
        worst = tuple(max(column) for column in zip(*scored, strict=True))
        return [terms or worst for terms in self._terms]


def from_plan(plan: SearchPlan) -> Bayes:
    """The optimizer of a plan."""
    return Bayes(plan.genome, plan.steps, plan.seed, plan.stop_when_flat)


def _lowest_bound(model: LossModel, best: Array, box: tuple[Array, Array], random: np.random.Generator) -> Array:
    """The point of a box where the lower confidence bound is lowest, by random points ever closer to the lowest."""
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
