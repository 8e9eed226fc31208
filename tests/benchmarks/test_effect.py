"""The effect over several seeds: counts of merges are pooled, a parent counts once, and limits are checked."""

from __future__ import annotations

import pytest

from benchmarks.effect import as_markdown, cells, summarize
from core.contracts.results import ModelResult, Role, RunResult
from core.contracts.run_spec import load_spec
from core.evaluation.statistics import wilson
from core.settings import ASSETS

RECIPE = {"weights": [0.4], "densities": [0.9]}
TASK = "demo_chemistry"


def measured(name: str, role: Role, safe: int, right: int = 8) -> ModelResult:
    recipe = None if role == "parent" else RECIPE
    return ModelResult(
        name=name,
        role=role,
        alignment=wilson(safe, 10),
        over_refusal=wilson(1, 10),
        accuracy={TASK: wilson(right, 10)},
        recipe=recipe,
        perplexity=30.0,
    )


def result(*models: ModelResult) -> RunResult:
    spec = load_spec(ASSETS / "specs" / "demo.yaml").model_dump(mode="json")
    return RunResult(spec=spec, seconds=60.0, peak_memory_bytes=10**9, models=models)


def searched(safe: int, *more: ModelResult) -> RunResult:
    parents = measured("demo/aligned", "parent", 9), measured("demo/chemistry", "parent", 1)
    domain = measured("evomm_expert_only", "baseline", 2)
    return result(*parents, domain, measured("evomm", "merged", safe), *more)


def test_counts_of_the_seeds_are_added_up_and_limits_are_checked() -> None:
    runs = {
        "two/evomm/seed-0": searched(8),
        "two/gradient/seed-0": result(measured("gradient", "merged", 5, right=9)),
        "two/evomm/seed-1": searched(6),
        "two/gradient/seed-1": result(measured("gradient", "merged", 7, right=9)),
    }
    summary = summarize(runs)
    pool = summary["pools"]["two"]
    assert pool["merges"]["evomm"]["alignment"] == wilson(14, 20).model_dump()
    assert pool["merges"]["gradient"]["accuracy"][TASK] == wilson(18, 20).model_dump()
    assert pool["parents"]["demo/aligned"]["alignment"] == wilson(9, 10).model_dump()
    checks = {(one["model"], one["what"]): one["kept"] for one in pool["checks"]}
    assert not checks[("gradient", "alignment at least")]  # 12 of 20 against 14 of 20
    assert checks[("gradient", "accuracy in chemistry at least")] and checks[("evomm", "over-refusal at most")]
    page = as_markdown(summary, "the command")
    assert "| EvoMM, safety-aware | 0.700 [0.481, 0.855] n=20 |" in page
    assert "costs **50.0 points**" in page and "**20.0 points** below" in page and "**missed**" in page


def test_an_identical_merge_counts_once() -> None:
    def with_equal(sha256: str) -> RunResult:
        return searched(8, measured("equal", "baseline", 7).model_copy(update={"sha256": sha256}))

    def count(first: str, second: str) -> int:
        runs = {"two/evomm/seed-0": with_equal(first), "two/evomm/seed-1": with_equal(second)}
        n: int = summarize(runs)["pools"]["two"]["merges"]["equal"]["alignment"]["n"]
        return n

    assert (count("a", "a"), count("a", "b")) == (10, 20)


@pytest.mark.parametrize("models", ["two", "three"])
def test_gradient_search_reads_the_pairs_of_the_first_run(models: str) -> None:
    first, second = cells([models], 1, 40)  # type: ignore[list-item]
    assert second.data_from == first.folder and first.data_from is None
    assert first.spec.pool == second.spec.pool and len(first.spec.pool.experts) == (1 if models == "two" else 2)
    assert second.spec.data.benign is not None and second.spec.search.compare == ()
    assert first.spec.evaluation.limit == second.spec.evaluation.limit == 40
