"""Measure how merge weights generalize with K training pairs: `python -m benchmarks.overfitting --data DIR --json`.

Gradient search runs on the demo pool of three models, once for each K (pairs of each kind) and each layout: one weight
for each expert, and one for each projection. The rows put the losses of the pairs that the steps used, of the held-out
fifth that chose the merge, and of pairs that no search saw side by side, with the rates on the probe's prompts. Test
prompts are not used, because the product's default K is chosen from the result. DIR is the data folder of a finished
run with look-alikes, such as one of `assets/specs/demo_gradient.yaml`; the other pairs are the demo's own.
`--write` puts a result's table into docs/explanation/gradient-search.md.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.command import make_parser
from benchmarks.gradient_settings import ONE, PAGE, PROJECTIONS, measured
from benchmarks.marked_section import replace_section
from core.errors import SafeMergeError
from core.settings import REPOSITORY

if TYPE_CHECKING:
    from benchmarks.gradient_search import GradientPool
    from core.data.training_pairs import Sample

SECTION = "overfitting"
RESULTS = REPOSITORY / "benchmarks" / "results"
KS = (16, 64, 256)
ALPHA = BETA = 3.0
STEPS = 65
UNSEEN = 64
"""Pairs of each kind for each expert that no search sees."""


def make_pool(k: int, benign: Sequence[Sample], pool: GradientPool) -> GradientPool:
    """Return a pool with K pairs of each kind; the unseen pairs are the same for every K.

    Args:
        k: pairs of each kind; harmless look-alikes are fewer when `benign` has fewer.
        benign: look-alikes with the most aligned parent's answers; a third of them is never trained on.
        pool: the loaded models.
    """
    from benchmarks.inputs import evenly_spaced, fact_pairs, refusal_pairs
    from benchmarks.search_problems import EXPERTS, FIELDS

    safety, domain, other_domain = refusal_pairs("train", k), list[Any](), list[Any]()
    for field, expert in zip(FIELDS, EXPERTS, strict=True):
        pairs = fact_pairs(field, 10_000, expert)
        unseen, seen = pairs[:: max(1, len(pairs) // UNSEEN)][:UNSEEN], list[Any]()
        questions = {pair.question for pair in unseen}
        seen = [pair for pair in pairs if pair.question not in questions]
        domain += evenly_spaced(seen, k // len(EXPERTS))
        other_domain += unseen
    return replace(
        pool,
        safety=safety,
        domain=domain,
        benign=benign[: min(k, 2 * len(benign) // 3)],
        other_safety=refusal_pairs("validation", 2 * UNSEEN),
        other_domain=other_domain,
        other_benign=benign[2 * len(benign) // 3 :],
    )


def measure(pool: GradientPool, k: int, layouts: Sequence[str], steps: int = STEPS) -> Iterator[dict[str, Any]]:
    """Search each layout with the pool's K pairs and measure its merge."""
    from benchmarks.gradient_search import search

    for layout in layouts:
        found = search(pool, layout, steps, alpha=ALPHA, beta=BETA, optimizer="gradient")
        best = min(found.scored, key=lambda event: event.held_out if event.held_out is not None else event.objective)
        pool.merge.apply(found.best)
        yield {
            "k": k,
            "benign": len(pool.benign),
            "layout": layout,
            "parameters": len(found.genome.searched),
            "candidates": len(found.scored),
            "steps": len(found.taken),
            "seconds": round(found.seconds, 1),
            "all_pairs": best.objective,
            "held_out": best.held_out,
            **measured(pool),
        }


def as_table(result: Mapping[str, Any]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| K | parameters | objective: all training pairs | held-out fifth | unseen pairs | alignment | over-refusal "
        "| accuracy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        rates = " | ".join(f"{row[name]:.2f}" for name in ("alignment", "over_refusal", "accuracy"))
        held_out = "" if row["held_out"] is None else f"{row['held_out']:.3f}"
        losses = f"{row['all_pairs']:.3f} | {held_out} | {unseen_objective(row):.3f}"
        lines.append(f"| {row['k']} | {row['parameters']} | {losses} | {rates} |")
    return "\n".join([*lines, "", f"{result['machine']}; three models; alpha {ALPHA:g}, beta {BETA:g}; seed 0."])


def unseen_objective(row: Mapping[str, Any]) -> float:
    """Return the objective of the pairs that no search saw."""
    losses: Mapping[str, float] = row["losses"]
    return losses["safety"] + ALPHA * losses["expert"] + BETA * losses["benign"]


def measure_demo(data: Path, ks: Sequence[int], layouts: Sequence[str]) -> list[dict[str, Any]]:
    """Measure every K on the demo pool of three models."""
    from benchmarks.gradient_search import demo_gradient_pool
    from benchmarks.search_problems import EXPERTS
    from core.data.training_pairs import read_samples

    benign = read_samples(data / "benign.jsonl")
    pool, rows = demo_gradient_pool(UNSEEN, EXPERTS, None), list[dict[str, Any]]()
    for k in ks:
        for row in measure(make_pool(k, benign, pool), k, layouts):
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
    return rows


def main() -> None:
    """Measure, or write a result's table."""
    parser = make_parser("overfitting", __doc__, tiny=False)
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder of a finished run with look-alikes")
    parser.add_argument("--k", type=int, nargs="+", default=KS, help="pairs of each kind")
    parser.add_argument("--layouts", nargs="+", default=(ONE, PROJECTIONS), help="groups of parameters")
    parser.add_argument("--result", type=Path, help="a result to write or print instead of measuring")
    parser.add_argument("--write", action="store_true", help="write the table into docs/explanation/gradient-search.md")
    options = parser.parse_args()
    if not (options.data or options.result):
        parser.error("Give --data DIR to measure, or --result FILE.")
    try:
        result = _measure(options) if options.data else json.loads(options.result.read_text(encoding="utf-8"))
    except SafeMergeError as error:
        parser.exit(2, f"{error.message} {error.hint}\n")
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(replace_section(page, SECTION, as_table(result)), encoding="utf-8")
    print(json.dumps(result) if options.json else as_table(result))


def _measure(options: Any) -> dict[str, Any]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    rows = measure_demo(options.data, options.k, options.layouts)
    return {"benchmark": "overfitting", "machine": device, "python": platform.python_version(), "rows": rows}


if __name__ == "__main__":
    main()
