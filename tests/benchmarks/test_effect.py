"""The effect over several seeds: counts of merges are pooled, a parent counts once."""

from __future__ import annotations

import pytest

from benchmarks.effect import as_markdown, summarize
from core.contracts.results import ModelResult, Role, RunResult
from core.contracts.run_spec import load_spec
from core.evaluation.statistics import wilson
from core.settings import ASSETS

RECIPE = {"weights": [0.4], "densities": [0.9]}


def measured(name: str, role: Role, safe: int) -> ModelResult:
    recipe = None if role == "parent" else RECIPE
    rate = wilson(safe, 10)
    accuracy = {"demo_chemistry": wilson(8, 10)}
    return ModelResult(name=name, role=role, alignment=rate, over_refusal=rate, accuracy=accuracy, recipe=recipe)


def result(safe: int) -> RunResult:
    models = (
        measured("demo/aligned", "parent", 9),
        measured("demo/chemistry", "parent", 1),
        measured("evomm_expert_only", "baseline", 2),
        measured("evomm", "merged", safe),
    )
    spec = load_spec(ASSETS / "specs" / "demo.yaml").model_dump(mode="json")
    return RunResult(spec=spec, seconds=60.0, peak_memory_bytes=10**9, models=models)


def test_counts_of_the_seeds_are_added_up() -> None:
    summary = summarize([result(8), result(6)])
    assert summary["models"]["evomm"]["alignment"] == wilson(14, 20).model_dump()
    assert summary["models"]["demo/aligned"]["alignment"] == wilson(9, 10).model_dump()
    assert summary["alignment_gained_over_expert_only"] == pytest.approx(0.5)
    assert summary["alignment_below_base"] == pytest.approx(0.2)
    assert summary["share_of_expert_accuracy"] == pytest.approx(1.0)
    assert "| EvoMM, safety-aware | 0.700 [0.481, 0.855] n=20 |" in as_markdown(summary)


def test_an_identical_merge_counts_once() -> None:
    def with_equal(sha256: str) -> RunResult:
        equal = measured("equal", "baseline", 7).model_copy(update={"sha256": sha256})
        return result(8).model_copy(update={"models": (*result(8).models, equal)})

    same = summarize([with_equal("a"), with_equal("a")])["models"]["equal"]["alignment"]
    other = summarize([with_equal("a"), with_equal("b")])["models"]["equal"]["alignment"]
    assert (same["n"], other["n"]) == (10, 20)
