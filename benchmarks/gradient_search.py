"""Measures gradient search on problems of many parameters: `benchmarks.search --pool demo` and `--tiny` call it.

Each problem is a layout of the same pool: groups of blocks and filters by which the weights are searched. Costs are in
forward-equivalents: seconds of a step over the seconds of scoring all pairs, both measured here. The held-out objective
is that of pairs which the search never saw, neither to train nor to choose.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from core.contracts.events import CandidateScored, Event, GradientStep
from core.contracts.optimizers import OptimizerName
from core.contracts.run_spec import GenomeSpec
from core.data.training_pairs import Sample
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.search.evaluator import Evaluator
from core.search.expert_losses import ExpertShares
from core.search.genome import Genome
from core.search.gradient.backward import Differentiator
from core.search.gradient.pair_parts import Pair, divide_pairs
from core.search.parameter_groups import layout_of
from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
from core.search.search_loop import run_search
from core.search.search_plan import SearchPlan

ALPHA = 0.3
PLAIN_CANDIDATES = 100
PLAIN_LAYOUT = "groups of 5 blocks, attention apart"
"""Layout on which CMA-ES is run too."""
LAYOUTS: dict[str, GenomeSpec] = {
    "one group": GenomeSpec(),
    "groups of 5 blocks, attention apart": GenomeSpec(layer_granularity=5, filters=("self_attn",)),
    "every block, attention apart": GenomeSpec(layer_granularity=1, filters=("self_attn",)),
    "every projection": GenomeSpec(layer_granularity=1, filters=("modules",)),
}
"""Layouts from few to many parameters."""


@dataclass(frozen=True)
class GradientPool:
    """A loaded pool with its pairs.

    Attributes:
        merge: the pool.
        tokenizer: of the pool.
        safety: training pairs.
        domain: training pairs.
        other_safety: pairs that no search sees.
        other_domain: pairs that no search sees.
        benign: training pairs of harmless look-alikes; empty leaves the third term out.
        other_benign: look-alikes that no search sees.
    """

    merge: MergePool
    tokenizer: Any
    safety: Sequence[Sample]
    domain: Sequence[Sample]
    other_safety: Sequence[Sample]
    other_domain: Sequence[Sample]
    benign: Sequence[Sample] = ()
    other_benign: Sequence[Sample] = ()

    def scorer(self, safety: Sequence[Sample], domain: Sequence[Sample], benign: Sequence[Sample] = ()) -> Scorer:
        """Return a scorer of some pairs."""
        sets = (TrainingSet(self.tokenizer, safety, REFUSAL_OPENING), TrainingSet(self.tokenizer, domain, None))
        shares = ExpertShares(tuple(sample.answered_by for sample in domain))
        third = TrainingSet(self.tokenizer, benign, None) if benign else None
        return Scorer(self.merge.live, *sets, self.merge.changing, shares, third)


class Searched(NamedTuple):
    """A finished search of a layout."""

    genome: Genome
    scored: list[CandidateScored]
    taken: list[GradientStep]
    best: Recipe
    seconds: float


def demo_gradient_pool(pairs: int, experts: Sequence[str], dtype: str | None) -> GradientPool:
    """Return the demo pool with `pairs` pairs of each kind, and as many others."""
    import torch

    from benchmarks.inputs import fact_pairs, open_live_pool, refusal_pairs
    from benchmarks.search_problems import BASE, FIELDS

    pool = open_live_pool(BASE, experts, getattr(torch, dtype) if dtype else None)
    fields = list(zip(FIELDS, experts, strict=False))
    safety = refusal_pairs("validation", pairs)
    domain = [pair for field, name in fields for pair in fact_pairs(field, pairs // len(fields), name)]
    more = [pair for field, name in fields for pair in fact_pairs(field, 3 * pairs, name)]
    others = _others(refusal_pairs("validation", 3 * pairs), safety), _others(more, domain)
    return GradientPool(pool.merge, pool.tokenizer, safety, domain, *others)


def _others(pairs: Sequence[Sample], used: Sequence[Sample]) -> list[Sample]:
    seen = {pair.question for pair in used}
    left = [pair for pair in pairs if pair.question not in seen]
    return left[:: max(1, len(left) // (2 * len(used)))][: 2 * len(used)]


def tiny_gradient_pool() -> GradientPool:
    """Return a random pool; it shows that the benchmark works, not how many candidates a trained model needs."""
    from tests.core.search.gradient.pools import DOMAIN, SAFETY, TOKENIZER, make_pool

    return GradientPool(make_pool(), TOKENIZER, SAFETY, DOMAIN, SAFETY, DOMAIN)


def measure_gradients(pool: GradientPool, names: Sequence[str], steps: int, seed: int = 0) -> list[dict[str, Any]]:
    """Search each layout, and compare with the best merge of one group."""
    rows = [_measure(pool, name, steps, seed) for name in names]
    few = next((row for row in rows if row["layout"] == "one group"), None)
    for row in rows:
        row["over_one_group"] = row["held_out_objective"] / few["held_out_objective"] if few else None
    return rows


def search(
    pool: GradientPool,
    name: str,
    steps: int,
    seed: int = 0,
    alpha: float = ALPHA,
    beta: float = 0.0,
    optimizer: OptimizerName = "gradient",
) -> Searched:
    """Search a layout of `LAYOUTS`; `beta` of 0 leaves the look-alikes out."""
    changed = {expert: pool.merge.changed_by(expert) for expert in pool.merge.experts}
    genome = Genome("task_arithmetic", pool.merge.base_name, pool.merge.experts)
    genome = replace(genome, layout=layout_of(LAYOUTS[name], pool.merge.tensors, changed))
    scorer = pool.scorer(pool.safety, pool.domain, pool.benign if beta else ())
    evaluator = Evaluator(pool.merge, scorer, differentiator=_differentiator(pool, scorer, seed, beta))
    plan = SearchPlan(optimizer, genome, steps, alpha, safety=True, seed=seed, optimizer=optimizer, beta=beta)
    started = time.monotonic()
    events, best = _drain(run_search(plan, evaluator, lambda: False))
    scored = [event for event in events if isinstance(event, CandidateScored)]
    taken = [event for event in events if isinstance(event, GradientStep)]
    return Searched(genome, scored, taken, best, time.monotonic() - started)


def _measure(pool: GradientPool, name: str, steps: int, seed: int) -> dict[str, Any]:
    genome, scored, taken, best, seconds = search(pool, name, steps, seed)
    forward = sorted(event.seconds for event in scored)[len(scored) // 2]
    pool.merge.apply(best)
    other = pool.scorer(pool.other_safety, pool.other_domain).score()
    whole = [event.seconds for event in taken if event.batch is None]
    return {
        "layout": name,
        "parameters": len(genome.searched),
        "models": 1 + len(pool.merge.experts),
        "candidates": len(scored),
        "steps": len(taken),
        "cost": len(scored) + sum(event.seconds for event in taken) / forward,
        "gradient_over_forward": sorted(whole)[len(whole) // 2] / forward if whole else None,
        "seconds": seconds,
        "start_objective": scored[0].objective,
        "objective": min(event.objective for event in scored),
        "held_out_objective": other.objective(ALPHA, True),
        "held_out_safety": other.safety.loss if other.safety else None,
        "held_out_expert": other.expert.loss if other.expert else None,
        "plain_cma_es": _plain(pool, name, seed) if name == PLAIN_LAYOUT else None,
        "curve": [
            {"objective": event.objective, "held_out": event.held_out, "seconds": event.seconds} for event in scored
        ],
    }


def _plain(pool: GradientPool, name: str, seed: int) -> dict[str, float]:
    """Return what CMA-ES finds on the same parameters with the paper's number of candidates."""
    found = search(pool, name, PLAIN_CANDIDATES, seed, optimizer="evomm")
    pool.merge.apply(found.best)
    other = pool.scorer(pool.other_safety, pool.other_domain).score()
    return {"candidates": len(found.scored), "held_out_objective": other.objective(ALPHA, True)}


def _differentiator(pool: GradientPool, scorer: Scorer, seed: int, beta: float) -> Differentiator:
    def new_set(pairs: Sequence[Pair]) -> TrainingSet:
        made = TrainingSet(pool.tokenizer, [pair.sample for pair in pairs], opening=None)
        made.keep_lower_blocks(pool.merge.live, scorer.blocks)
        return made

    benign = pool.benign if beta else ()
    parts = divide_pairs({"safety": pool.safety, "expert": pool.domain, "benign": benign}, scorer.shares, seed)
    return Differentiator(pool.merge.live, pool.merge, parts, new_set)


def _drain(events: Iterator[Event]) -> tuple[list[Event], Recipe]:
    seen: list[Event] = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def search_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of several machines as a table in Markdown."""
    lines = [
        "| machine | models | parameters | cost in candidates | backward + forward over forward | held-out objective "
        "| over the best merge of one group |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for row in result["gradient"]:
            factor = row["gradient_over_forward"]
            cells = [result["machine"], str(row["models"]), str(row["parameters"]), f"{row['cost']:.0f}"]
            cells += [f"{factor:.1f}" if factor else "", f"{row['held_out_objective']:.4f}"]
            lines.append(_line([*cells, f"{row['over_one_group']:.2f}"]))
            if plain := row.get("plain_cma_es"):
                cells = [result["machine"], str(row["models"]), f"{row['parameters']}, plain CMA-ES"]
                lines.append(_line([*cells, str(plain["candidates"]), "", f"{plain['held_out_objective']:.4f}", ""]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
