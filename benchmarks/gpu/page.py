"""The table of a GPU's figures on `docs/explanation/performance.md`, from the files in `benchmarks/results`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.targets import targets_of

_DATE = len("2026-11-27")


def newest_result(folder: Path) -> dict[str, Any]:
    """Return the newest day's result of a GPU; {} without one.

    Several files of the same card and day are one result: each section comes from the last file that measured it.
    """
    by_date: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("gpu-*.json")):
        by_date.setdefault(path.stem[-_DATE:], []).append(path)
    if not by_date:
        return {}
    results = [json.loads(path.read_text(encoding="utf-8")) for path in by_date[max(by_date)]]
    last: dict[str, Any] = results[-1]
    results = [result for result in results if result["device"] == last["device"]]
    sections = {name: figures for one in results for name, figures in one["sections"].items() if _measured(figures)}
    return {**last, "sections": sections}


def _measured(figures: Mapping[str, Any]) -> bool:
    return bool(set(figures) - {"peak_memory_bytes"})


def gpu_table(result: Mapping[str, Any]) -> str:
    """Return the measured ratios and their targets as a table in Markdown."""
    if not result:
        return "Not measured yet."
    sections = result["sections"]
    rows = ["| ratio | measured | target |", "|---|---|---|"]
    for size in result["sizes"]:
        for target in targets_of(size, sections):
            limit = f"{'at least' if target.at_least else 'at most'} {target.limit}"
            rows.append(f"| {target.name} | {target.value:.2f} | {limit}, {'met' if target.met else '**missed**'} |")
    limits = sections["limits"]
    machine = (
        f"{result['device']}, torch {result['torch']}, {result['date']}; copies run at {limits['copy_gbs']:.0f} GB/s, "
        f"matrix products at {limits['best_matmul_tflops']:.0f} TFLOP/s."
    )
    return "\n".join([*rows, "", machine])
