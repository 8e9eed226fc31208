"""The GPU benchmark runs every section at tiny size on a CPU, and continues after a section that fails."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.__main__ import result_path
from benchmarks.gpu.gradient_cost import genome_of, gradient_steps
from benchmarks.gpu.merge_speed import METHODS, compare_writers
from benchmarks.gpu.packed_scoring import RandomSet
from benchmarks.gpu.random_pool import BASE, EXPERT, RandomPool, build_pool
from benchmarks.gpu.sections import Check, Figures, NotRun
from benchmarks.gpu.targets import Target, targets_of
from core.merging.engine import MergePool
from core.merging.storage import Storage
from core.merging.tensor_writer import TensorWriter
from core.search.objectives import TermWeights
from core.settings import REPOSITORY
from tests.core.merging.kernels_on_cpu import reference_kernel

CPU = torch.device("cpu")


def run_tiny() -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def pool() -> RandomPool:
    return build_pool(Check(CPU, 60.0, tiny=True), "tiny", 12, {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the expected sections are those of a CPU")
def test_every_section_runs_at_tiny_size() -> None:
    result = run_tiny()
    assert result["benchmark"] == "gpu"
    assert result["errors"] == {}
    assert set(result["not_run"]) == {"tiny/fused"}
    sections = result["sections"]
    assert set(sections) == {"limits", "same_weights", "masks", "trimming"} | {
        f"tiny/{name}" for name in ("pool", "merge", "fused", "score", "gradient", "search", "mergekit")
    }
    assert sections["same_weights"]["all_equal"]
    assert sections["masks"]["same_bits"]
    assert sections["trimming"]["same_values"]
    assert [candidate["failure"] for candidate in sections["tiny/search"]["candidates"]] == [""] * 5
    assert {target["name"].split(":")[0] for target in result["targets"]} == {"tiny"}


def test_a_section_that_fails_does_not_stop_the_others() -> None:
    check = Check(CPU, 60.0, tiny=True)

    def fail(figures: Figures) -> None:
        figures["before"] = 1
        raise ValueError("broken")

    def leave_out(_figures: Figures) -> None:
        raise NotRun("no such device")

    check.section("fails", fail)
    check.section("left out", leave_out)
    check.section("too long", lambda figures: figures.update(s=1), need_s=1e9)
    check.section("works", lambda figures: figures.update(s=2))
    assert check.sections == {"fails": {"before": 1}, "left out": {}, "too long": {}, "works": {"s": 2}}
    assert check.errors == {"fails": "ValueError: broken"}
    assert set(check.not_run) == {"left out", "too long"}


def test_kernels_are_compared_with_torch(pool: RandomPool) -> None:
    check, figures, own = Check(CPU, 60.0, tiny=True), Figures(), pool.merge.writer
    check.sections["tiny/merge"] = {"floor_s": 1.0}
    made = TensorWriter(reference_kernel)
    compare_writers(check, pool, figures, made)
    assert figures.pop("refused") == [] and pool.merge.writer is own
    assert len(made._kernels) == 3  # TIES's thresholds of a CPU need torch's operators
    assert set(figures) == set(METHODS)
    assert all(row["unequal"] == 0 and row["kernel_s"] > 0 for row in figures.values())


def test_rows_of_any_length_give_the_same_losses(pool: RandomPool) -> None:
    live = pool.live.float()
    expected = RandomSet(pool.pairs).score(live).per_sample
    for data in (RandomSet(pool.pairs, 256), RandomSet(pool.pairs).unchunked()):
        assert torch.allclose(data.score(live).per_sample, expected, atol=2e-5)


def in_float32(pool: RandomPool) -> RandomPool:
    live, base = copy.deepcopy(pool.live).float(), {name: tensor.float() for name, tensor in pool.base.items()}
    merge = MergePool(live, BASE, base, Storage(CPU))
    merge.add_expert(EXPERT, {name: tensor.float() for name, tensor in pool.expert.items()})
    return replace(pool, live=live, merge=merge)


def test_a_gradient_step_gives_the_derivative_of_the_scored_loss(pool: RandomPool) -> None:
    pool = in_float32(pool)
    steps, genome = gradient_steps(pool, pool.pairs), genome_of(pool)
    data, start = RandomSet(pool.pairs), [0.5] * len(genome.searched)

    def loss(point: list[float]) -> float:
        pool.merge.apply(genome.recipe(point))
        return float(data.score(pool.live).per_sample.double().mean())

    found = steps.differentiate(genome, start, TermWeights(0.0, 1.0))
    assert found.value == pytest.approx(loss(start), rel=1e-5)
    moved = [[0.5 + side * value for value in found.gradient] for side in (20.0, -20.0)]
    squared = sum(value**2 for value in found.gradient)
    assert squared == pytest.approx((loss(moved[0]) - loss(moved[1])) / 40.0, rel=0.05)


def test_targets_are_ratios_to_the_measured_limits() -> None:
    sections = {
        "1b/merge": {"floor_s": 1.0, "ties": {"s": 3.0, "over_floor": 3.0}},
        "1b/score": {"pairs": 400, "product": {"s": 2.0, "matmul_share": 0.5}},
        "1b/gradient": {"kept": {"over_scoring": 2.5}, "checkpointed": {"memory_over_scoring": 1.3}},
    }
    ties, scoring, candidate, step, memory = targets_of("1b", sections)
    assert (ties.value, ties.met) == (3.0, False)
    assert (scoring.value, scoring.at_least, scoring.met) == (0.5, True, False)
    assert candidate.value == pytest.approx((3.0 + 10.0) / (1.0 + 5.0))
    assert step == Target(step.name, 2.5, 2.6)
    assert memory == Target(memory.name, 1.3, 1.25)
    assert list(targets_of("8b", sections)) == []


def test_results_are_named_by_card_and_date(tmp_path: Path) -> None:
    path = result_path({"device": "NVIDIA H100 80GB HBM3", "date": "2026-11-27"}, tmp_path)
    assert path == tmp_path / "gpu-nvidia-h100-80gb-hbm3-2026-11-27.json"
