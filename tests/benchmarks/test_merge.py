"""The merge benchmark times merges that are the same: ours, mergekit's and the plain pass, on one tiny pool."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.merge import AGAINST_MERGEKIT, METHODS, by_mergekit, measure, recipe, tiny_workload
from core.merging.engine import MergePool
from core.settings import REPOSITORY


def test_every_figure_is_there_and_ratios_are_of_medians() -> None:
    result = measure(tiny_workload(), rounds=3, mergekit_rounds=2)
    assert set(result["candidate_s"]) == set(result["first_candidate_s"]) == set(METHODS)
    assert set(result["mergekit_s"]) == set(AGAINST_MERGEKIT)
    assert {spent["n"] for spent in result["candidate_s"].values()} == {3}
    assert {spent["n"] for spent in result["mergekit_s"].values()} == {2}
    ours, plain = result["candidate_s"]["dare_ties"]["median"], result["plain_pass_s"]["median"]
    assert result["ratios"]["candidate_to_plain_pass"]["dare_ties"] == pytest.approx(ours / plain)
    theirs = result["mergekit_s"]["dare_ties"]["median"]
    assert result["ratios"]["mergekit_to_candidate"]["dare_ties"] == pytest.approx(theirs / ours)
    assert 0 < result["changing_parameters"] <= result["parameters"]


def test_what_is_timed_of_mergekit_is_the_same_merge() -> None:
    work = tiny_workload()
    pool = MergePool(work.live, work.names[0], work.states[work.names[0]])
    pool.add_expert(work.names[1], work.states[work.names[1]])
    pool.apply(recipe(work.names, "ties", 0.4))
    theirs = by_mergekit(recipe(work.names, "ties", 0.4), work)
    live = work.live.state_dict()
    different = sum(int((live[name] != tensor).sum()) for name, tensor in theirs.items())
    total = sum(tensor.numel() for tensor in theirs.values())
    assert different <= 0.01 * total  # of entries of equal magnitude at the threshold either may be the one kept
    dare = recipe(work.names, "dare_ties", 0.4)
    dropped = [
        float((tensor == work.states[work.names[0]][name]).float().mean())
        for name, tensor in by_mergekit(dare, work).items()
        if tensor.numel() > 500
    ]
    assert dropped == pytest.approx([1 - dare.densities[0]] * len(dropped), abs=0.12)  # type: ignore[index]
    assert torch.isfinite(torch.tensor(dropped)).all()


def test_the_command_prints_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.merge", "--tiny", "--json", "--rounds", "2", "--mergekit-rounds", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=True)
    assert json.loads(done.stdout)["benchmark"] == "merge"
