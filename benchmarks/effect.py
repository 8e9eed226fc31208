"""The paper's effect on the demo pool, over several seeds: `python -m benchmarks.effect --seeds 3`.

Runs `assets/specs/demo.yaml` once per seed, pools the counts of the seeds, and writes
`docs/effect.md`: each parent, the plain merge, EvoMM on domain data only and the safety-aware merge. A seed whose run
is finished in the output folder is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.seeds import distinct, minutes_text, pool_rates, rate_text, read_model, run_to_end
from core.contracts.results import ModelResult, Rate, RunResult
from core.contracts.run_spec import RunSpec, load_spec
from core.errors import SafeMergeError
from core.runs.folder import RunFolder
from core.settings import ASSETS, REPOSITORY, Settings, load_settings

NAMES = {
    "equal": "plain merge (equal weights)",
    "evomm_expert_only": "EvoMM, domain data only",
    "evomm": "EvoMM, safety-aware",
}


def run_seeds(seeds: int, limit: int | None, out: Path, settings: Settings) -> list[RunResult]:
    """The result of each seed, running those that are not there yet; raises as `run_to_end`."""
    folders = [RunFolder((out / f"seed-{seed}").resolve()) for seed in range(seeds)]
    return [run_to_end(_spec(seed, limit), settings, folder) for seed, folder in enumerate(folders)]


def _spec(seed: int, limit: int | None) -> RunSpec:
    spec = load_spec(ASSETS / "specs" / "demo.yaml")
    return spec.model_copy(
        update={
            "search": spec.search.model_copy(update={"seed": seed}),
            "evaluation": spec.evaluation.model_copy(update={"limit": limit or spec.evaluation.limit}),
        }
    )


def summarise(results: Sequence[RunResult]) -> dict[str, Any]:
    """Per model the pooled rates, and the three comparisons that make the paper's effect."""
    models = {model.name: _pooled(results, model) for model in results[0].models}
    base, expert = (model.name for model in results[0].models if model.role == "parent")
    merged = models["evomm"]
    return {
        "benchmark": "effect",
        "seeds": len(results),
        "spec": results[0].spec,
        "seconds": [result.seconds for result in results],
        "peak_memory_bytes": max(result.peak_memory_bytes for result in results),
        "models": {name: {key: rate.model_dump() for key, rate in rates.items()} for name, rates in models.items()},
        "alignment_gained_over_expert_only": merged["alignment"].rate - models["evomm_expert_only"]["alignment"].rate,
        "alignment_below_base": models[base]["alignment"].rate - merged["alignment"].rate,
        "share_of_expert_accuracy": merged["accuracy"].rate / models[expert]["accuracy"].rate,
        "recipes": [{model.name: model.recipe for model in result.models if model.recipe} for result in results],
    }


def _pooled(results: Sequence[RunResult], model: ModelResult) -> dict[str, Rate]:
    """A model's rates over all seeds; what is the same in each, as parents are, counts once."""
    counted = results[:1] if model.role == "parent" else results
    measured = distinct([found for result in counted if (found := read_model(result, model.name))])
    return {
        "alignment": pool_rates([found.alignment for found in measured if found.alignment]),
        "over_refusal": pool_rates([found.over_refusal for found in measured if found.over_refusal]),
        "accuracy": pool_rates([next(iter(found.accuracy.values())) for found in measured]),
    }


def as_markdown(summary: dict[str, Any]) -> str:
    """`docs/effect.md`."""
    rows = "\n".join(
        f"| {NAMES.get(name, name)} | {' | '.join(_text(rate) for rate in rates.values())} |"
        for name, rates in summary["models"].items()
    )
    recipes = "\n".join(
        f"| {seed} | {_recipe(row['evomm'])} | {_recipe(row['evomm_expert_only'])} |"
        for seed, row in enumerate(summary["recipes"])
    )
    return f"""# The paper's effect on the demo pool

Made by `python -m benchmarks.effect --seeds {summary["seeds"]}`: `assets/specs/demo.yaml`
({_settings(summary["spec"])}) with seeds 0 to {summary["seeds"] - 1}, measured on held-out test prompts.
Counts of the seeds are pooled; brackets are 95 % Wilson intervals. Parents, and a merge that is the same with several
seeds, count once; seeds share prompts.

| model | alignment (higher is better) | over-refusal (lower is better) | accuracy |
|---|---|---|---|
{rows}

- Leaving the safety data out costs **{100 * summary["alignment_gained_over_expert_only"]:.1f} points** of alignment.
- The safety-aware merge is **{100 * summary["alignment_below_base"]:.1f} points** below its aligned parent.
- It keeps **{100 * summary["share_of_expert_accuracy"]:.1f} %** of the expert's accuracy.

| seed | safety-aware recipe | domain-only recipe |
|---|---|---|
{recipes}

Each run took {minutes_text(summary["seconds"])} minutes on the machine that made this page, at most
{summary["peak_memory_bytes"] / 1e9:.1f} GB of memory, one run after the other in one process.

Guard: `phrases`, so alignment here means that the model refuses. Models of 135M parameters; what holds for them
need not hold for larger ones.
"""


def _settings(spec: dict[str, Any]) -> str:
    search, data = spec["search"], spec["data"]
    pairs = f"K={data['safety']['k']}+{data['domain']['k']}"
    return f"{search['method']}, {search['steps']} candidates, {pairs}, alpha {search['alpha']}"


def _text(rate: dict[str, Any]) -> str:
    return rate_text(Rate.model_validate(rate))


def _recipe(recipe: dict[str, Any]) -> str:
    weights = "/".join(f"{w:.2f}" for w in recipe["weights"])
    densities = "/".join(f"{d:.2f}" for d in recipe["densities"] or ())
    return f"weight {weights}, density {densities}"


def main() -> int:
    """Run, summarise, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.effect", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=None, help="most prompts per test file (default: the spec's)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "effect")
    parser.add_argument("--json", action="store_true", help="print one JSON object; docs/effect.md is not written")
    options = parser.parse_args()
    try:
        summary = summarise(run_seeds(options.seeds, options.limit, options.out, load_settings()))
    except SafeMergeError as error:
        raise SystemExit(f"{error.message} {error.hint}") from error
    if options.json:
        print(json.dumps(summary))
        return 0
    (REPOSITORY / "docs" / "effect.md").write_text(as_markdown(summary), encoding="utf-8")
    print(as_markdown(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
