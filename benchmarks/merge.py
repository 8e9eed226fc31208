"""Seconds to merge one candidate into the live model: `python -m benchmarks.merge --json`.

Demo pool (base and chemistry), TIES at several densities, a new density each time so that no threshold is remembered.
Preparation (task vectors and trim counts) is timed apart, as it is done once per run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from core.merging.recipes import Recipe
from core.runs.live_pool import LivePool, load_pool
from core.settings import load_settings
from core.specs import ExpertSpec, PoolSpec

BASE, EXPERT = "demo/aligned", "demo/chemistry"


def measure(rounds: int) -> dict[str, Any]:
    """Time preparation and `rounds` candidates of each method."""
    pool, loading_s = _load()
    started = time.perf_counter()
    pool.merge.apply(_ties(0.5))
    first_s = time.perf_counter() - started
    times = {
        "ties": [_time(pool, _ties(0.2 + 0.6 * i / rounds)) for i in range(rounds)],
        "task_arithmetic": [
            _time(pool, Recipe(method="task_arithmetic", base=BASE, experts=(EXPERT,), weights=(0.1 + i / rounds,)))
            for i in range(rounds)
        ],
    }
    return {
        "benchmark": "merge",
        "pool": [BASE, EXPERT],
        "parameters": sum(p.numel() for p in pool.live.parameters()),
        "loading_s": loading_s,
        "first_ties_s": first_s,
        "candidate_s": {
            name: {"median": statistics.median(spent), "max": max(spent), "n": len(spent)}
            for name, spent in times.items()
        },
    }


def _load() -> tuple[LivePool, float]:
    started = time.perf_counter()
    loaded: list[LivePool] = []
    spec = PoolSpec(base=BASE, experts=(ExpertSpec(model=EXPERT),))
    for _ in load_pool(spec, load_settings(), loaded.append):
        pass
    return loaded[0], time.perf_counter() - started


def _ties(density: float) -> Recipe:
    return Recipe(method="ties", base=BASE, experts=(EXPERT,), weights=(0.6,), densities=(density,))


def _time(pool: LivePool, recipe: Recipe) -> float:
    started = time.perf_counter()
    pool.merge.apply(recipe)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    result = measure(options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    for name, spent in result["candidate_s"].items():
        print(f"{name}: median {spent['median']:.3f} s, worst {spent['max']:.3f} s over {spent['n']} candidates")
    print(f"loading {result['loading_s']:.1f} s, first TIES candidate {result['first_ties_s']:.2f} s")


if __name__ == "__main__":
    main()
