"""The estimate of a whole 8B run: measured rates replace assumptions, and each part is labeled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.page import gpu_table, newest_result
from benchmarks.gpu.run_estimate import ASSUMED, estimate, estimate_table, rates_of
from benchmarks.performance import ESTIMATES, GPU_RESULTS, fill

MEASURED: dict[str, dict[str, Any]] = {
    "limits": {"copy_gbs": 1000.0, "sha256_gbs": 2.0, "best_matmul_tflops": 500.0},
    "8b/score": {"product": {"matmul_share": 0.5}},
    "8b/merge": {"parameters": 8e9, "ties": {"s": 0.5}},
}


def test_without_a_result_every_rate_is_an_assumption() -> None:
    result = estimate({})
    assert not any(rate["measured"] for rate in result["rates"].values())
    assert {name: rate["value"] for name, rate in result["rates"].items()} == {
        name: value for name, (value, _) in ASSUMED.items()
    }
    assert result["seconds"] == pytest.approx(sum(part["seconds"] for part in result["parts"]))
    assert "measured rate" not in estimate_table(result)


def test_measured_rates_replace_assumptions() -> None:
    rates = rates_of(MEASURED)
    assert (rates["bandwidth"].value, rates["matrix"].value, rates["hash"].value) == (1e12, 2.5e14, 2e9)
    assert [name for name, rate in rates.items() if not rate.measured] == ["disk"]
    slow, fast = (estimate(sections) for sections in (MEASURED, {}))
    parts = {part["name"]: part["seconds"] for part in slow["parts"]}
    assert parts["merge"] == pytest.approx(48 * 8.03e9 * 0.5 / 8e9)
    assert parts["score"] == pytest.approx(48 * 400 * 120 * 2 * 8.03e9 / 2.5e14)
    assert slow["seconds"] > fast["seconds"]
    assert not slow["all_measured"]


def test_a_part_counts_as_measured_only_with_all_its_rates() -> None:
    lines = estimate_table(estimate(MEASURED)).splitlines()
    origin = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    assert "measured rate" in origin["score"] and "assumed rate" in origin["load"]


def test_the_page_shows_the_estimate() -> None:
    page = ESTIMATES.read_text(encoding="utf-8")
    result = newest_result(GPU_RESULTS)
    assert fill(page, {"gpu_run": estimate_table(estimate(result.get("sections", {})))}, "estimated") == page
    assert fill(page, {"gpu": gpu_table(result)}) == page


def test_files_of_one_day_are_one_result(tmp_path: Path) -> None:
    def save(name: str, sections: dict[str, Any]) -> None:
        (tmp_path / name).write_text(json.dumps({"device": "card", "sections": sections}), encoding="utf-8")

    assert newest_result(tmp_path) == {}
    save("gpu-card-2026-01-01.json", {"limits": {"copy_gbs": 1}})
    save("gpu-card-2026-01-02.json", {"1b/merge": {"s": 1}, "1b/score": {"s": 2}})
    save("gpu-card-scores-2026-01-02.json", {"1b/merge": {"peak_memory_bytes": 9}, "1b/score": {"s": 3}})
    assert newest_result(tmp_path)["sections"] == {"1b/merge": {"s": 1}, "1b/score": {"s": 3}}
