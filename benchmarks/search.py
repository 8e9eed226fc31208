"""Count the candidates that a search needs: `python -m benchmarks.search --json`.

Three searches solve each problem of 2, 4 and 12 parameters (`benchmarks.search_problems`): plain CMA-ES with its whole
budget, EvoMM with `stop_when_flat`, and Bayesian optimization. For each seed:

- `near_after`: candidates until the best is within 0.5 % of the best known objective.
- `level_after`: candidates until the best is within 0.5 % of plain CMA-ES's best with the same seed.
- `stopped_after`: candidates when the search stopped by its own rule; `gap`: its distance to the best known objective.
- `needed`: `stopped_after` if the search was within 0.5 % of the best known objective, otherwise null.

`gradient` has gradient search on layouts of the demo pool with few to many parameters, two and three models: the cost
in scored candidates as measured, and the objective on pairs that no search saw (`benchmarks.gradient_search`).

The best known objective is the lowest that any search of the problem scored; for the first synthetic problem a dense
grid counts too. The result has grid search, with the same objective, for comparison.

`--pool synthetic` takes a minute and merges nothing; `--tiny` merges random models, which says nothing about trained
ones; `--pool demo` merges and scores the demo pool some 2,000 times. The result names the pool.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

from benchmarks.command import make_parser
from benchmarks.gradient_search import LAYOUTS, demo_gradient_pool, measure_gradients, tiny_gradient_pool
from benchmarks.search_problems import (
    ALPHA,
    EXPERTS,
    CachedObjective,
    Objective,
    Problem,
    best_synthetic,
    problems,
    synthetic,
)
from benchmarks.timing import over_seeds
from core.search.bayes import Bayes
from core.search.evomm import EvoMM
from core.search.genome import Genome
from core.search.grid import grid_recipes
from core.search.optimizer import Optimizer

NEAR = 1.005
"""An objective of at most this times the best is within 0.5 %."""
PAIRS = 64
NewOptimizer = Callable[[Genome, int, int, float | None], Optimizer]
"""Makes an optimizer from a genome, a budget of candidates, a seed and a tolerance in nats."""
SEARCHES: dict[str, NewOptimizer] = {"plain": EvoMM, "evomm": EvoMM, "bayes": Bayes}
TOLERANCES: dict[str, float | None] = {"plain": None, "evomm": 0.005, "bayes": None}
"""Each search's tolerance for `stop_when_flat`, in nats."""


def measure(
    pool: str,
    seeds: int,
    steps: int,
    tolerances: Mapping[str, float | None] = TOLERANCES,
    pairs: int = PAIRS,
    dtype: str | None = None,
) -> dict[str, Any]:
    """Solve every problem with every search and seed, and compare with the best known objective."""
    results = [measure_problem(problem, seeds, steps, tolerances) for problem in problems(pool, pairs, dtype)]
    return {
        "gradient": gradients(pool, pairs, steps, dtype),
        "benchmark": "search",
        "pool": pool,
        "pairs": pairs if pool == "demo" else None,
        "dtype": dtype,
        "method": "ties",
        "alpha": ALPHA if pool != "tiny" else None,
        "steps": steps,
        "stop_when_flat": {name: limit for name, limit in tolerances.items() if limit is not None},
        "problems": results,
    }


def gradients(pool: str, pairs: int, steps: int, dtype: str | None = None) -> list[dict[str, Any]]:
    """Return gradient search on layouts of few to many parameters; empty for objectives without a model."""
    if pool == "synthetic":
        return []
    if pool == "tiny":
        return measure_gradients(tiny_gradient_pool(), ("one group", "every projection"), min(steps, 16))
    rows = []
    for experts in (EXPERTS[:1], EXPERTS):
        rows += measure_gradients(demo_gradient_pool(pairs, experts, dtype), tuple(LAYOUTS), min(steps, 65))
    return rows


def measure_problem(problem: Problem, seeds: int, steps: int, tolerances: Mapping[str, float | None]) -> dict[str, Any]:
    """Return the result of one problem."""
    objective = CachedObjective(problem.objective)
    values = {
        name: [search(name, problem.genome, objective, steps, seed, tolerances[name]) for seed in range(seeds)]
        for name in SEARCHES
    }
    grid = [sum(objective(recipe)) for recipe in grid_recipes(problem.genome)]
    known = [min(run) for runs in values.values() for run in runs] + grid
    best = min([*known, best_synthetic()] if problem.objective is synthetic else known)
    lowest = min(objective.scored, key=lambda recipe: sum(objective.scored[recipe]))
    return {
        "problem": problem.name,
        "parameters": len(problem.genome.searched),
        "idle": problem.genome.inactive,
        "best_known": best,
        "best_recipe": {"weights": lowest.weights, "densities": lowest.densities},
        "searches": {
            name: _summarize(
                [_run(seed, run, best, min(values["plain"][seed])) for seed, run in enumerate(values[name])]
            )
            for name in SEARCHES
        },
        "grid": {"candidates": len(grid), "gap": min(grid) / best - 1},
    }


def search(
    name: str, genome: Genome, objective: Objective, steps: int, seed: int, tolerance: float | None
) -> list[float]:
    """Return the objectives of one search's candidates, in order."""
    optimizer = SEARCHES[name](genome, steps, seed, tolerance)
    values: list[float] = []
    while recipes := optimizer.ask():
        terms = [objective(recipe) for recipe in recipes]
        values += (generation := [sum(losses) for losses in terms])
        optimizer.tell(generation, terms)
    return values


def _run(seed: int, values: list[float], best: float, plain: float) -> dict[str, Any]:
    so_far = list(enumerate(accumulate(values, min), start=1))
    near = [number for number, value in so_far if value <= best * NEAR]
    level = [number for number, value in so_far if value <= plain * NEAR]
    return {
        "seed": seed,
        "near_after": near[0] if near else None,
        "level_after": level[0] if level else None,
        "stopped_after": len(values),
        "needed": len(values) if near else None,
        "gap": min(values) / best - 1,
    }


def _summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    keys = ("near_after", "level_after", "stopped_after", "needed", "gap")
    return {key: over_seeds([run[key] for run in runs]) for key in keys} | {"seeds": runs}


def main() -> None:
    """Measure and print."""
    parser = make_parser("search", __doc__, tiny=False)
    parser.add_argument("--pool", choices=["synthetic", "tiny", "demo"], default="synthetic")
    parser.add_argument("--tiny", action="store_const", const="tiny", dest="pool", help="the same as --pool tiny")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--steps", type=int, default=100, help="maximum number of candidates")
    for name, limit in TOLERANCES.items():
        if limit is not None:
            parser.add_argument(
                f"--{name}-flat", type=float, default=limit, help="tolerance for an early stop, in nats"
            )
    parser.add_argument("--pairs", type=int, default=PAIRS, help="training pairs of each kind, for the demo pool")
    parser.add_argument("--only-gradient", action="store_true", help="measure gradient search alone")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="of the demo pool (default: the fastest)")
    options = parser.parse_args()
    if options.only_gradient:
        rows = gradients(options.pool, options.pairs, options.steps, options.dtype)
        print(json.dumps({"benchmark": "search", "pool": options.pool, "pairs": options.pairs, "gradient": rows}))
        return
    result = measure(
        options.pool,
        options.seeds,
        options.steps,
        {name: getattr(options, f"{name}_flat", None) for name in SEARCHES},
        options.pairs,
        options.dtype,
    )
    if options.json:
        print(json.dumps(result))
        return
    for problem in result["problems"]:
        _print_problem(problem, result["pool"])
    for row in result["gradient"]:
        print(
            f"gradient, {row['models']} models, {row['parameters']} parameters ({row['layout']}): cost of "
            f"{row['cost']:.0f} candidates, held-out objective {row['held_out_objective']:.4f}"
        )


def _print_problem(problem: dict[str, Any], pool: str) -> None:
    best, grid = problem["best_known"], problem["grid"]
    print(f"{problem['problem']}: {problem['parameters']} parameters; best known objective {best:.4f} ({pool})")
    for name, row in problem["searches"].items():
        near, stopped, gap = row["near_after"], row["stopped_after"], row["gap"]
        print(
            f"  {name}: stopped after {stopped['median']} (worst {stopped['max']}), {gap['median']:.2%} from the best "
            f"(worst {gap['max']:.2%}); within 0.5 % after {near['median']} (missed by {near['missed']} seeds)"
        )
    print(f"  grid: {grid['gap']:.2%} from the best after {grid['candidates']} candidates")


if __name__ == "__main__":
    main()
