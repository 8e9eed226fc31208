"""Measure the noise of the searched objective: `python -m benchmarks.roughness --json`.

In bfloat16 the merged weights and every step of scoring are rounded, so the objectives of nearly equal recipes scatter.
For each number format and K, the benchmark scores recipes on a short line of weights, fits a parabola to their
objectives, and reports the standard deviation of the residuals as a share of the mean. A search can come closer to the
best objective than this only by chance. The recipes merge `demo/chemistry` with TIES, near the best known recipe of the
first problem of `benchmarks.search`. `--tiny` merges random parents; it shows that the benchmark works, and measures
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.command import make_parser
from benchmarks.search_problems import Objective, problems
from core.merging.recipes import Recipe
from core.search.genome import Genome

WEIGHT, DENSITY = 0.30, 0.89
STEP = 0.0005
"""Distance of neighboring weights: too small to change the smooth part of the objective."""
MEASURED = (("bfloat16", 16), ("bfloat16", 64), ("float32", 16))


def measure(pool: str, formats: Sequence[tuple[str, int]], points: int) -> dict[str, Any]:
    """Measure the scatter for each number format and number of pairs."""
    lines = []
    for dtype, pairs in formats:
        problem = problems(pool, pairs, dtype)[0]
        values = along_line(problem.genome, problem.objective, points)
        lines.append({"dtype": dtype, "pairs": pairs, "objective": float(np.mean(values)), "rough": roughness(values)})
    return {"benchmark": "roughness", "pool": pool, "points": points, "step": STEP, "lines": lines}


def along_line(genome: Genome, objective: Objective, points: int) -> list[float]:
    """Return the objectives at neighboring weights; everything else is equal."""
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
    """Return the standard deviation of a parabola fit's residuals over the mean; (n,) values with n > 3."""
    positions, objectives = np.arange(len(values)), np.asarray(values)
    residuals = objectives - np.polyval(np.polyfit(positions, objectives, 2), positions)
    return float(np.sqrt((residuals**2).sum() / (len(values) - 3)) / objectives.mean())


def main() -> None:
    """Measure and print."""
    parser = make_parser("roughness", __doc__)
    parser.add_argument("--points", type=int, default=16, help="number of recipes on the line, more than 3")
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
