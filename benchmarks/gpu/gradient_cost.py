"""Time and memory of one step of a gradient search, next to a scoring pass of the same pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.gpu.packed_scoring import RandomSet
from benchmarks.gpu.random_pool import BASE, EXPERT, RandomPool
from benchmarks.gpu.sections import Check, Figures
from core.data.training_pairs import Sample
from core.models.chat_format import EncodedPair
from core.models.row_budget import row_tokens
from core.search.genome import Genome
from core.search.gradient.backward import Differentiated, Differentiator
from core.search.gradient.pair_parts import Pair, PairParts
from core.search.objectives import TermWeights
from core.search.parameter_groups import Layout, modules_of

_PAIRS = 40
_WEIGHTS = TermWeights(safety=0.0, expert=1.0)


def measure_gradient(check: Check, pool: RandomPool, figures: Figures) -> None:
    """Measure a step without and with checkpointed blocks.

    A step merges a recipe with a weight for each projection of each layer, scores the pairs, and differentiates. It is
    compared with the merge and the scoring pass of the same recipe and pairs.
    """
    steps, genome = gradient_steps(pool, pool.few_pairs(_PAIRS)), genome_of(pool)
    point, few = [0.5] * len(genome.searched), RandomSet(pool.few_pairs(_PAIRS), row_tokens(pool.live))
    figures["parameters"] = len(point)

    def merge_and_score() -> None:
        pool.merge.apply(genome.recipe(point))
        few.score(pool.live)

    def step() -> Differentiated:
        return steps.differentiate(genome, point, _WEIGHTS)

    figures["scoring_s"], figures["scoring_bytes"] = scoring = _cost(check, merge_and_score)
    for name, steps.checkpointing in (("kept", False), ("checkpointed", True)):
        seconds, size = _cost(check, step)
        figures[name] = {"s": seconds, "bytes": size, "over_scoring": seconds / scoring[0]}
        if scoring[1]:
            figures[name]["memory_over_scoring"] = size / scoring[1]
        figures[name]["derivative"] = step().gradient[0]


def _cost(check: Check, work: Callable[[], object]) -> tuple[float, int]:
    """Return the seconds and the peak of the device's memory in bytes (0 without a GPU)."""
    work()
    if check.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = check.seconds(work, rounds=3)
    return seconds, torch.cuda.max_memory_allocated() if check.on_gpu else 0


def genome_of(pool: RandomPool) -> Genome:
    """Return task arithmetic with a weight for each projection of each layer."""
    blocks = pool.live.config.num_hidden_layers
    return Genome("task_arithmetic", BASE, (EXPERT,), layout=Layout(blocks, 1, modules_of(pool.base)))


def gradient_steps(pool: RandomPool, pairs: Sequence[EncodedPair]) -> Differentiator:
    """Return a differentiator whose training pairs are given token ids."""
    share, length = 1 / len(pairs), row_tokens(pool.live)
    kept = tuple(Pair("expert", place, share, Sample("", "")) for place in range(len(pairs)))

    def new_set(some: Sequence[Pair]) -> RandomSet:
        return RandomSet([pairs[pair.place] for pair in some], length)

    return Differentiator(pool.live, pool.merge, PairParts((kept,), ()), new_set)
