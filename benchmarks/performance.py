"""Write measured figures into `docs/performance.md`: `python -m benchmarks.performance --write`.

A GPU's figures, and the estimate of a run on one, go into `docs/explanation/performance.md`.

The command reads each benchmark's JSON from the folder given with `--results` (NAME.json); if the file is missing, it
runs the benchmark and writes the file. It replaces the tables between `<!-- measured:NAME -->` marks only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.command import make_parser
from benchmarks.gpu.page import gpu_table, newest_result
from benchmarks.gpu.run_estimate import estimate, estimate_table
from core.settings import REPOSITORY

PAGE = REPOSITORY / "docs" / "performance.md"
ESTIMATES = REPOSITORY / "docs" / "explanation" / "performance.md"
RESULTS = REPOSITORY / "runs" / "benchmarks"
GPU_RESULTS = REPOSITORY / "benchmarks" / "results"


def merge_table(result: dict[str, Any]) -> str:
    """Return the seconds of each method beside the limit and mergekit."""
    rows = ["| method | seconds | plain passes (limit: 1) | mergekit in memory | ratio |", "|---|---|---|---|---|"]
    for method, ours in result["candidate_s"].items():
        passes = result["ratios"]["candidate_to_plain_pass"][method]
        theirs, ratio = result["mergekit_s"].get(method), result["ratios"]["mergekit_to_candidate"].get(method)
        cells = (f"{theirs['median']:.2f} s", f"{ratio:.0f} x") if theirs and ratio else ("not compared", "")
        rows.append(f"| {method} | {ours['median']:.3f} | {passes:.1f} | {cells[0]} | {cells[1]} |")
    share = result["changing_parameters"] / result["parameters"]
    return "\n".join([*rows, "", f"{_machine(result)}; {share:.0%} of the weights differ."])


def candidate_table(result: dict[str, Any]) -> str:
    """Return the seconds of a whole candidate, part by part."""
    rows = ["| way | merge | load | score | whole | times ours |", "|---|---|---|---|---|---|"]
    whole = result["ours_s"]["total"]["median"]
    for key, name in (("ours_s", "ours"), ("every_block_s", "ours, every block run"), ("on_disk_s", "on disk")):
        cells = [f"{result[key][p]['median']:.2f} s" if p in result[key] else "" for p in ("merge", "load", "score")]
        total = result[key]["total"]["median"]
        rows.append(f"| {name} | {' | '.join(cells)} | {total:.2f} s | {total / whole:.1f} |")
    pairs = "+".join(map(str, result["pairs"]))
    return "\n".join([*rows, "", f"{_machine(result)}; K = {pairs}, medians of {result['repetitions']}."])


def scoring_table(result: dict[str, Any]) -> str:
    """Return the share of the matmul rate that scoring reaches."""
    rows = ["| blocks run | GFLOP | seconds | GFLOP/s | matmul alone | share |", "|---|---|---|---|---|---|"]
    for key, name in (("kept_blocks", "above the unchanged blocks"), ("every_block", "all")):
        row = result[key]
        rows.append(
            f"| {name} | {row['gflop']:.0f} | {row['score_s']['median']:.2f} | {row['reached_gflops']:.0f} | "
            f"{row['matmul_gflops']:.0f} | {row['share']:.0%} |"
        )
    return "\n".join([*rows, "", f"{_machine(result)}; K = {'+'.join(map(str, result['pairs']))}."])


def storage_table(result: dict[str, Any]) -> str:
    """Return preparation, speed and size of each weight storage."""
    rows = [
        "| pool | weights | prepared in | a candidate | base | task vector | trim counts | extra |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pool in ("demo", "full"):
        for name, row in result[pool]["storages"].items():
            size = row["bytes_per_parameter"]
            cells = " | ".join(f"{size[key]:.2f}" for key in ("base", "task_vector", "trim_counts", "extra"))
            rows.append(
                f"| {pool} | {name} | {row['preparation_s']:.2f} s | {row['candidate_s']['median']:.3f} s | {cells} |"
            )
    theirs = result["full"]["mergekit_s"]["median"]
    same = "the same" if all(result[pool]["same_weights"] for pool in ("demo", "full")) else "NOT the same"
    ratio = theirs / result["full"]["storages"]["resident"]["candidate_s"]["median"]
    return "\n".join(
        [
            *rows,
            "",
            f"{_machine(result)}; sizes in bytes per parameter. All three storages give {same} weights. mergekit's "
            f"in-memory TIES merge of the pool `full`: {theirs:.2f} s, {ratio:.0f} times ours (resident).",
        ]
    )


def generate_table(result: dict[str, Any]) -> str:
    """Return the prompts per second in batches, and with one call each."""
    rows = ["| task | prompts | in batches | one by one | prompts per second | ratio |", "|---|---|---|---|---|---|"]
    for name, row in result["tasks"].items():
        both = " | ".join(f"{row[key]['median']:.2f} s" for key in ("batched_s", "one_by_one_s"))
        rows.append(f"| {name} | {row['prompts']} | {both} | {row['prompts_per_s']:.1f} | {row['speedup']:.1f} x |")
    return "\n".join([*rows, "", f"{_machine(result)}."])


def evaluation_table(result: dict[str, Any]) -> str:
    """Return the seconds of both measurements; accuracy beside lm-eval alone."""
    ours, theirs = result["accuracy_s"]["median"], result["lm_eval_s"]["median"]
    rows = [
        "| measured | seconds | lm-eval alone | overhead |",
        "|---|---|---|---|",
        f"| alignment, {result['prompts']} prompts | {result['alignment_s']['median']:.1f} |  |  |",
        f"| accuracy, {result['task']} | {ours:.2f} | {theirs:.2f} | {result['overhead']:+.0%} |",
    ]
    tail = f"{_machine(result)}; replies of at most {result['reply_tokens']} tokens."
    return "\n".join([*rows, "", tail])


def following_table(result: dict[str, Any]) -> str:
    """Milliseconds of a page's tick, and seconds of the list of runs."""
    rows = ["| measured | folding or reading all | with what is known | ratio |", "|---|---|---|---|"]
    for row in result["follow"]:
        whole, tick = (f"{1e3 * row[key]['median']:.2f} ms" for key in ("whole_s", "tick_s"))
        rows.append(f"| a new event after {row['events']:,} | {whole} | {tick} | {row['ratio']:.0f} x |")
    runs = result["list"]
    name, whole = f"list of {runs['runs']} runs of {runs['run_events']:,} events", f"{runs['whole_s']:.2f} s"
    for key, when in (("files", "a new process"), ("memory", "later")):
        spent, ratio = runs[f"{key}_s"]["median"], runs["ratios"][f"whole_to_{key}"]
        rows.append(f"| {name}, {when} | {whole} | {1e3 * spent:.0f} ms | {ratio:.0f} x |")
    return "\n".join([*rows, "", f"{result['threads']} processor threads."])


def search_table(result: dict[str, Any]) -> str:
    """Return the candidates that each search took by its own rule, and its distance to the best known objective."""
    rows = [
        f"| problem | search | stopped after (of {result['steps']}) | above the best known | within 0.5 % "
        "| as good as plain |",
        f"|{'---|' * 6}",
    ]
    for problem in result["problems"]:
        for name, row in problem["searches"].items():
            (stopped, most), (gap, worst) = (_median_and_max(row[key]) for key in ("stopped_after", "gap"))
            seeds, level = len(row["seeds"]), row["level_after"]
            after = f"after {level['median']:.0f}, " if level["median"] is not None else ""
            rows.append(
                f"| {problem['problem']}, {problem['parameters']} parameters | {name} | {stopped:.0f} (most {most}) "
                f"| {gap:.2%} (worst {worst:.2%}) | {seeds - row['near_after']['missed']} of {seeds} seeds "
                f"| {after}{seeds - level['missed']} of {seeds} seeds |"
            )
    pairs = f", K = {result['pairs']}+{result['pairs']}" if result["pairs"] else ""
    dtype = f", {result['dtype']}" if result["dtype"] else ""
    return "\n".join([*rows, "", f"Pool: {result['pool']}{pairs}{dtype}; {result['method']}; medians over seeds."])


def roughness_table(result: dict[str, Any]) -> str:
    """Return the scatter of the objectives of nearly equal recipes."""
    rows = ["| number format | K | objective | scatter |", "|---|---|---|---|"]
    for line in result["lines"]:
        cells = (f"{line['pairs']}+{line['pairs']}", f"{line['objective']:.4f} nats", f"{line['rough']:.2%}")
        rows.append(f"| {line['dtype']} | {' | '.join(cells)} |")
    tail = f"Pool: {result['pool']}; {result['points']} weights, {result['step']:g} apart; standard deviations."
    return "\n".join([*rows, "", tail])


def _median_and_max(summary: dict[str, Any]) -> tuple[Any, Any]:
    return summary["median"], summary["max"]


def loading_table(result: dict[str, Any]) -> str:
    """Return the seconds to add an expert, from a loaded model and from the files."""
    rows = ["| weights | from a loaded model | from the files | ratio |", "|---|---|---|---|"]
    for name, row in result["storages"].items():
        model, shards = (row[f"{way}_s"]["min"] for way in ("model", "shards"))
        rows.append(f"| {name} | {model:.2f} s | {shards:.2f} s | {row['model_to_shards']:.1f} x |")
    same = "the same" if all(row["same_weights"] for row in result["storages"].values()) else "NOT the same"
    size = f"{result['parameters'] / 1e6:.0f}M parameters in bfloat16, {result['threads']} processor threads"
    note = f"shortest of {result['repetitions']}; both ways write {same} weights."
    return "\n".join([*rows, "", f"{size}; {note}"])


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "merge": merge_table,
    "candidate": candidate_table,
    "scoring": scoring_table,
    "storage": storage_table,
    "search": search_table,
    "search_float32": search_table,
    "roughness": roughness_table,
    "generate": generate_table,
    "evaluation": evaluation_table,
    "following": following_table,
    "loading": loading_table,
}


_DEMO = ("--pool", "demo")
COMMANDS: dict[str, tuple[str, ...]] = {
    "search": ("search", *_DEMO, "--pairs", "16"),
    "search_float32": ("search", *_DEMO, "--pairs", "8", "--seeds", "3", "--dtype", "float32"),
}
"""Module and options of the benchmarks that do not run with their defaults."""


def fill(page: str, tables: dict[str, str], kind: str = "measured") -> str:
    """Return `page` with the tables between their marks, which name their kind: `measured` or `estimated`."""
    for name, table in tables.items():
        opening, closing = f"<!-- {kind}:{name} -->\n", f"<!-- /{kind}:{name} -->"
        before, rest = page.split(opening)
        page = f"{before}{opening}{table}\n{closing}{rest.split(closing, 1)[1]}"
    return page


def read_or_run(name: str, results: Path) -> dict[str, Any]:
    """Return a benchmark's JSON from the folder; if it is missing, run the benchmark and write the file."""
    path = results / f"{name}.json"
    if not path.exists():
        module, *options = COMMANDS.get(name, (name,))
        command = [sys.executable, "-m", f"benchmarks.{module}", *options, "--json"]
        done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
        results.mkdir(parents=True, exist_ok=True)
        path.write_text(done.stdout, encoding="utf-8")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _machine(result: dict[str, Any]) -> str:
    return f"{result['threads']} processor threads, {result['dtype']}"


def main() -> None:
    """Collect the results, then write or print the tables."""
    parser = make_parser("performance", __doc__, tiny=False)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of NAME.json; missing benchmarks are run")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/performance.md")
    options = parser.parse_args()
    results = {name: read_or_run(name, options.results) for name in TABLES}
    if options.json:
        print(json.dumps({"benchmark": "performance", **results}))
        return
    tables = {name: TABLES[name](result) for name, result in results.items()}
    gpu = newest_result(GPU_RESULTS)
    on_gpu = {"gpu": gpu_table(gpu)}
    estimates = {"gpu_run": estimate_table(estimate(gpu.get("sections", {})))}
    if options.write:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
        page = fill(ESTIMATES.read_text(encoding="utf-8"), on_gpu)
        ESTIMATES.write_text(fill(page, estimates, "estimated"), encoding="utf-8")
        return
    print("\n\n".join([*tables.values(), *on_gpu.values(), *estimates.values()]))


if __name__ == "__main__":
    main()
