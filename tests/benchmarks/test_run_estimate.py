"""The estimate of a whole 8B run: measured rates replace assumptions, and each part is labeled."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.gpu.run_estimate import ASSUMED, estimate, estimate_table, rates_of
from benchmarks.performance import ESTIMATES, fill, newest_gpu_result

MEASURED: dict[str, dict[str, Any]] = {
    "limits": {"copy_gbs": 1000.0, "sha256_gbs": 2.0, "best_matmul_tflops": 500.0},
    "8b/score": {"product": {"matmul_share": 0.5}},
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
    assert parts["merge"] == pytest.approx(48 * 2 * 6 * 8.03e9 / 1e12)
    assert parts["score"] == pytest.approx(48 * 400 * 120 * 2 * 8.03e9 / 2.5e14)
    assert slow["seconds"] > fast["seconds"]
    assert not slow["all_measured"]


def test_a_part_counts_as_measured_only_with_all_its_rates() -> None:
    lines = estimate_table(estimate(MEASURED)).splitlines()
    origin = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    assert "measured rate" in origin["score"] and "assumed rate" in origin["load"]


def test_the_page_shows_the_estimate() -> None:
    page = ESTIMATES.read_text(encoding="utf-8")
    tables = {"gpu_run": estimate_table(estimate(newest_gpu_result().get("sections", {})))}
    assert fill(page, tables, "estimated") == page
