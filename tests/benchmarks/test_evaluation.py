"""The evaluation benchmark times the same measurement twice, ours and lm-eval's, with the same result."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from core.settings import REPOSITORY


def test_with_json_the_command_prints_one_object() -> None:
    command = [sys.executable, "-m", "benchmarks.evaluation", "--json", "--tiny"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["prompts"] == 2
    assert result["accuracy"]["ours"] == pytest.approx(result["accuracy"]["lm_eval"])
    ratio = result["accuracy_s"]["median"] / result["lm_eval_s"]["median"]
    assert result["overhead"] == pytest.approx(ratio - 1)
    assert result["alignment_s"]["n"] == 1
