"""How many candidates a search needs: `python -m benchmarks.search --json`.

EvoMM runs its whole budget without a stopping rule, which is plain CMA-ES, and once more with `stop_when_flat`. For
each seed: candidates until the best is within 0.5 % of the best objective known, where the rule stops, and how far from
the best that is. Grid search, judged by the same objective, is given for comparison.

The objective is one of two. `--pool synthetic` (seconds) is a smooth function of a TIES merge's weight and density,
fitted to the losses of a recorded search on the demo pool; its best is known from a dense grid. `--pool demo` (some 500
merges) merges and scores the demo pool on its own texts; the best known is the best of all that were scored.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from core.merging.recipes import Recipe
from core.search.evomm import EvoMM
from core.search.genome import Genome
from core.search.grid import grid_recipes

BASE, EXPERT = "demo/aligned", "demo/chemistry"
GENOME = Genome("ties", BASE, (EXPERT,))
ALPHA = 0.3
NEAR = 1.005
"""Within 0.5 % of the best."""
PAIRS = 64
FINE = 400
"""Points on each axis of the dense grid over the synthetic objective."""

Objective = Callable[[Recipe], float]


def measure(pool: str, seeds: int, steps: int, tolerance: float) -> dict[str, Any]:
    """Search with every seed and compare with the best objective known."""
    objective = remembered(synthetic if pool == "synthetic" else demo_objective())
    whole = [search(objective, steps, seed, None) for seed in range(seeds)]
    stopped = [search(objective, steps, seed, tolerance) for seed in range(seeds)]
    grid = [objective(recipe) for recipe in grid_recipes(GENOME)]
    known = [min(values) for values in (*whole, *stopped, grid)]
    best = min([*known, best_synthetic()] if pool == "synthetic" else known)
    runs = [_run(seed, *both, best) for seed, both in enumerate(zip(whole, stopped, strict=True))]
    return {
        "benchmark": "search",
        "pool": pool,
        "method": GENOME.method,
        "alpha": ALPHA,
        "steps": steps,
        "stop_when_flat": tolerance,
        "best_known": best,
        "near_after": _summary([run["near_after"] for run in runs]),
        "stopped_after": _summary([run["stopped_after"] for run in runs]),
        "gap_when_stopped": _summary([run["gap_when_stopped"] for run in runs]),
        "gap_of_plain": _summary([run["gap_of_plain"] for run in runs]),
        "grid": {"candidates": len(grid), "gap": min(grid) / best - 1},
        "seeds": runs,
    }


def search(objective: Objective, steps: int, seed: int, tolerance: float | None) -> list[float]:
    """Objectives of one search's candidates, in their order."""
    optimizer, values = EvoMM(GENOME, steps, seed, tolerance), []
    while recipes := optimizer.ask():
        generation = [objective(recipe) for recipe in recipes]
        optimizer.tell(generation)
        values += generation
    return values


def remembered(objective: Objective) -> Objective:
    """`objective`, calculated once for each recipe: a seed's two searches begin alike."""
    known: dict[Recipe, float] = {}

    def value(recipe: Recipe) -> float:
        if recipe not in known:
            known[recipe] = objective(recipe)
        return known[recipe]

    return value


def synthetic(recipe: Recipe) -> float:
    """CE_safety + alpha CE_expert as functions of weight and density, fitted to 24 recorded candidates.

    Largest error of the fit: 0.006 nats (safety) and 0.015 (domain).
    """
    return _fitted(recipe.weights[0], (recipe.densities or (1.0,))[0])


def _fitted(weight: float, density: float) -> float:
    safe, skilled = weight * density**0.0936, weight * density**0.160
    ce_safety = 3.118 * math.exp(-3.374 * safe) + 0.128 * safe**2 + 1.926 * safe - 1.381
    return ce_safety + ALPHA * (0.065 + 3.674 * math.exp(-7.038 * skilled))


def best_synthetic() -> float:
    """Lowest value on a dense grid over the searched range."""
    weights, densities = ([gene.value(i / FINE) for i in range(FINE + 1)] for gene in GENOME.genes)
    return min(_fitted(weight, density) for weight in weights for density in densities)


def demo_objective() -> Objective:
    """Merges the demo pool and scores it on `PAIRS` pairs of each kind, none of them from the probe or the test."""
    from benchmarks.workload import spread
    from core.data.samples import Sample
    from core.demo.corpus import REFUSAL, harmful
    from core.demo.facts import training_questions
    from core.runs.live_pool import LivePool, load_pool
    from core.search.running import Evaluator
    from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
    from core.settings import load_settings
    from core.specs import ExpertSpec, PoolSpec

    loaded: list[LivePool] = []
    for _ in load_pool(PoolSpec(base=BASE, experts=(ExpertSpec(model=EXPERT),)), load_settings(), loaded.append):
        pass
    pool = loaded[0]
    refused = [Sample(prompt.prompt, REFUSAL) for prompt in spread(harmful("validation"), PAIRS)]
    answered = [Sample(question, answer) for question, answer in spread(training_questions("chemistry"), PAIRS)]
    safety = TrainingSet(pool.tokenizer, refused, opening=REFUSAL_OPENING)
    scorer = Scorer(pool.live, safety, TrainingSet(pool.tokenizer, answered, opening=None), pool.merge.changing)
    evaluator = Evaluator(pool.merge, scorer)
    return lambda recipe: evaluator.scores(recipe, with_safety=True).objective(ALPHA, safety=True)


def _run(seed: int, whole: list[float], stopped: list[float], best: float) -> dict[str, Any]:
    near = [number for number, value in enumerate(accumulate(whole, min), start=1) if value <= best * NEAR]
    return {
        "seed": seed,
        "near_after": near[0] if near else None,
        "stopped_after": len(stopped),
        "gap_when_stopped": min(stopped) / best - 1,
        "gap_of_plain": min(whole) / best - 1,
    }


def _summary(values: list[float | None]) -> dict[str, Any]:
    """Over seeds; those that never came near count as `missed`."""
    found = [value for value in values if value is not None]
    return {
        "median": statistics.median(found) if found else None,
        "max": max(found, default=None),
        "missed": len(values) - len(found),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--pool", choices=["synthetic", "demo"], default="synthetic")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="candidates of plain CMA-ES")
    parser.add_argument("--stop-when-flat", type=float, default=0.005, help="the rule's tolerance, in nats")
    options = parser.parse_args()
    result = measure(options.pool, options.seeds, options.steps, options.stop_when_flat)
    if options.json:
        print(json.dumps(result))
        return
    near, stopped, gap = (result[key] for key in ("near_after", "stopped_after", "gap_when_stopped"))
    print(f"best objective known: {result['best_known']:.4f} nats a token ({result['pool']})")
    print(f"within 0.5 % after {near['median']} candidates (worst {near['max']}, missed by {near['missed']} seeds)")
    print(f"stopped after {stopped['median']} of {result['steps']} (worst {stopped['max']}), {_percent(gap)} from it")
    print(f"plain CMA-ES to the end: {_percent(result['gap_of_plain'])} from it")
    print(f"grid search: {result['grid']['gap']:.2%} from it after {result['grid']['candidates']} candidates")


def _percent(gap: dict[str, Any]) -> str:
    return f"median {gap['median']:.2%}, worst {gap['max']:.2%}"


if __name__ == "__main__":
    main()
