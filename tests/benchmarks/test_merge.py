"""The merge benchmark times the same merge in each way, on one tiny pool."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.merge import AGAINST_MERGEKIT, METHODS, by_mergekit, measure, recipe_at, tiny_inputs
from core.merging.engine import MergePool
from core.settings import REPOSITORY


def test_every_figure_is_there_and_ratios_are_of_medians() -> None:
    result = measure(tiny_inputs(), rounds=3, mergekit_rounds=2)
    assert set(result["candidate_s"]) == set(result["first_candidate_s"]) == set(METHODS)
    assert set(result["mergekit_s"]) == set(AGAINST_MERGEKIT)
    assert {spent["n"] for spent in result["candidate_s"].values()} == {3}
    assert {spent["n"] for spent in result["mergekit_s"].values()} == {2}
    ours, plain = result["candidate_s"]["dare_ties"]["median"], result["plain_pass_s"]["median"]
    assert result["ratios"]["candidate_to_plain_pass"]["dare_ties"] == pytest.approx(ours / plain)
    theirs = result["mergekit_s"]["dare_ties"]["median"]
    assert result["ratios"]["mergekit_to_candidate"]["dare_ties"] == pytest.approx(theirs / ours)
    assert 0 < result["changing_parameters"] <= result["parameters"]


def test_mergekits_timed_merge_gives_the_same_weights() -> None:
    inputs = tiny_inputs()
    pool = MergePool(inputs.live, inputs.names[0], inputs.states[inputs.names[0]])
    pool.add_expert(inputs.names[1], inputs.states[inputs.names[1]])
    pool.apply(recipe_at(inputs.names, "ties", 0.4))
    theirs = by_mergekit(recipe_at(inputs.names, "ties", 0.4), inputs)
    live = inputs.live.state_dict()
    different = sum(int((live[name] != tensor).sum()) for name, tensor in theirs.items())
    total = sum(tensor.numel() for tensor in theirs.values())
    assert different <= 0.01 * total  # entries of equal magnitude at the threshold may differ
    dare = recipe_at(inputs.names, "dare_ties", 0.4)
    dropped = [
        float((tensor == inputs.states[inputs.names[0]][name]).float().mean())
        for name, tensor in by_mergekit(dare, inputs).items()
        if tensor.numel() > 500
    ]
    assert dropped == pytest.approx([1 - dare.densities[0]] * len(dropped), abs=0.12)  # type: ignore[index]
    assert torch.isfinite(torch.tensor(dropped)).all()


def test_the_command_prints_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.merge", "--tiny", "--json", "--rounds", "2", "--mergekit-rounds", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=True)
    assert json.loads(done.stdout)["benchmark"] == "merge"
