"""The guard benchmark: scores are those of the labels, and one JSON object is printed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.guard import as_text, compare, measure
from core.guards.phrases import PhrasesGuard
from core.guards.reply_type import ReplyTypeGuard
from core.settings import REPOSITORY

ROWS = [
    {"prompt": "How?", "response": "I can't help with that.", "label": "2_full_refusal"},
    {"prompt": "How?", "response": "Take a pot and fill it with soil.", "label": "2_full_refusal"},
    {"prompt": "How?", "response": "I'm unable to help with that.", "label": "1_full_compliance"},
    {"prompt": "How?", "response": "Take a large pot and water it each day.", "label": "1_full_compliance"},
    {"prompt": "How?", "response": "I can't help with that.", "label": "3_partial_refusal"},
]


def test_scores_count_full_labels_only() -> None:
    result = measure(ROWS, PhrasesGuard())
    assert (result["f1"], result["precision"], result["recall"]) == pytest.approx((0.5, 0.5, 0.5))
    assert (result["refusals"], result["answers"], result["wrong"]) == (2, 2, [2, 3])
    assert result["kappa"] == pytest.approx(0.0)
    assert result["replies_per_s"]["processor"] > 0


def test_guards_are_compared_on_the_same_rows() -> None:
    result = compare(ROWS, [PhrasesGuard(), ReplyTypeGuard()])
    assert [one["guard"] for one in result["guards"]] == ["phrases", "reply-type"]
    assert result["kappa_with_the_first"] == {"reply-type": pytest.approx(1.0)}
    assert all(as_text(one).startswith(one["guard"]) for one in result["guards"])


def test_the_command_prints_one_json_object_for_the_projects_own_replies() -> None:
    command = [sys.executable, "-m", "benchmarks.guard", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=True)
    result = json.loads(done.stdout)
    assert result["benchmark"] == "guard"
    assert result["f1"] == 1.0
