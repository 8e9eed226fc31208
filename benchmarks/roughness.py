"""How rough the searched objective is: `python -m benchmarks.roughness --json`.

A merge in bfloat16 is rounded, and so is every step of scoring it: objectives of recipes that hardly differ scatter.
For each number format and K: objectives on a short line of weights, a parabola fitted to them, and the standard
deviation of what it leaves, as a share of their mean. No search comes nearer to the best than that but by luck. Demo
pool, `demo/chemistry` by TIES, near the best known recipe of `benchmarks.search`'s first problem. `--tiny` has random
parents: it shows that the benchmark runs, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.search_problems import Objective, problems
from core.merging.recipes import Recipe
from core.search.genome import Genome

WEIGHT, DENSITY = 0.30, 0.89
STEP = 0.0005
"""Between neighbours: far less than moves the smooth part of the objective."""
MEASURED = (("bfloat16", 16), ("bfloat16", 64), ("float32", 16))


def measure(pool: str, formats: Sequence[tuple[str, int]], points: int) -> dict[str, Any]:
    """The line in each number format on each number of pairs."""
    lines = []
    for dtype, pairs in formats:
        problem = problems(pool, pairs, dtype)[0]
        values = along_line(problem.genome, problem.objective, points)
        lines.append({"dtype": dtype, "pairs": pairs, "objective": float(np.mean(values)), "rough": roughness(values)})
    return {"benchmark": "roughness", "pool": pool, "points": points, "step": STEP, "lines": lines}


def along_line(genome: Genome, objective: Objective, points: int) -> list[float]:
    """Objectives at neighbouring weights, all else equal."""
    return [
        sum(
            objective(
                Recipe(
                    method=genome.method,
                    base=genome.base,
                    experts=genome.experts,
                    weights=(WEIGHT + STEP * number,),
                    densities=(DENSITY,),
                )
            )
        )
        for number in range(points)
    ]


def roughness(values: Sequence[float]) -> float:
    """Standard deviation of what a fitted parabola leaves, as a share of the mean; (n,) values with n > 3."""
    places, found = np.arange(len(values)), np.asarray(values)
    left = found - np.polyval(np.polyfit(places, found, 2), places)
    return float(np.sqrt((left**2).sum() / (len(values) - 3)) / found.mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roughness", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--tiny", action="store_true", help="random weights, in seconds; not a measurement")
    parser.add_argument("--points", type=int, default=16, help="recipes on the line, more than 3")
    options = parser.parse_args()
    pool, formats = ("tiny", MEASURED[-1:]) if options.tiny else ("demo", MEASURED)
    result = measure(pool, formats, max(options.points, 4))
    if options.json:
        print(json.dumps(result))
        return
    for line in result["lines"]:
        print(
            f"{line['dtype']}, K = {line['pairs']}+{line['pairs']}: {line['rough']:.2%} of {line['objective']:.4f} nats"
        )


if __name__ == "__main__":
    main()
