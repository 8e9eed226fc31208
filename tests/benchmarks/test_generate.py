"""The generation benchmark times the same work twice: the same greedy replies, in batches and one by one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.generate import batched, measure, one_by_one, tiny_tasks
from core.settings import REPOSITORY


def test_both_ways_give_the_same_greedy_replies() -> None:
    questions, replies = tiny_tasks(5)
    assert batched(replies) == one_by_one(replies)
    assert len(batched(questions)) == len(one_by_one(questions)) == 5


def test_figures_are_medians_and_their_ratio() -> None:
    result = measure(tiny_tasks(3), rounds=3)
    for spent in result["tasks"].values():
        assert spent["batched_s"]["n"] == spent["one_by_one_s"]["n"] == 3
        assert spent["speedup"] == pytest.approx(spent["one_by_one_s"]["median"] / spent["batched_s"]["median"])
        assert spent["prompts_per_s"] == pytest.approx(3 / spent["batched_s"]["median"])


def test_with_json_the_command_prints_one_object() -> None:
    command = [sys.executable, "-m", "benchmarks.generate", "--json", "--tiny", "--prompts", "2", "--rounds", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)["tasks"]) == {"questions", "replies"}
