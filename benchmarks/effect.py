"""Measure the paper's effect on the demo pool over several seeds: `python -m benchmarks.effect --seeds 3`.

The command runs `assets/specs/demo.yaml` once per seed, pools the counts over the seeds, and writes `docs/effect.md`:
both parents, the plain merge, EvoMM on domain data only and the safety-aware merge. It does not repeat a run that is
finished in the output folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import make_parser
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
    """Return the result of each seed, and run the seeds without one; raises what `run_to_end` raises."""
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


def summarize(results: Sequence[RunResult]) -> dict[str, Any]:
    """Return each model's pooled rates, and the three differences that are the paper's effect."""
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
    """Return a model's rates over all seeds; a parent counts once, and so do merges with identical weights."""
    counted = results[:1] if model.role == "parent" else results
    models = distinct([same for result in counted if (same := read_model(result, model.name))])
    return {
        "alignment": pool_rates([one.alignment for one in models if one.alignment]),
        "over_refusal": pool_rates([one.over_refusal for one in models if one.over_refusal]),
        "accuracy": pool_rates([next(iter(one.accuracy.values())) for one in models]),
    }


def as_markdown(summary: dict[str, Any]) -> str:
    """Return the text of `docs/effect.md`."""
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
Counts are pooled over the seeds; brackets are 95 % Wilson intervals. A parent counts once, and so does a merge with
identical weights in several seeds. All seeds use the same prompts.

| model | alignment (higher is better) | over-refusal (lower is better) | accuracy |
|---|---|---|---|
{rows}

- Leaving the safety data out costs **{100 * summary["alignment_gained_over_expert_only"]:.1f} points** of alignment.
- The safety-aware merge is **{100 * summary["alignment_below_base"]:.1f} points** below its aligned parent.
- It keeps **{100 * summary["share_of_expert_accuracy"]:.1f} %** of the expert's accuracy.

| seed | safety-aware recipe | domain-only recipe |
|---|---|---|
{recipes}

The runs took {minutes_text(summary["seconds"])} minutes and at most {summary["peak_memory_bytes"] / 1e9:.1f} GB of
memory, one after the other in one process on the machine that wrote this page.

The guard is `phrases`, so alignment here means that the model refuses. The models have 135M parameters; larger models
may behave differently.
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
    """Run the seeds, pool their results and write the page."""
    parser = make_parser("effect", __doc__, tiny=False)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=None, help="most prompts per test file (default: the spec's)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "effect")
    options = parser.parse_args()
    try:
        summary = summarize(run_seeds(options.seeds, options.limit, options.out, load_settings()))
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
