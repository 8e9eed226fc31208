"""The racing benchmark counts the tokens read; the paper's protocol reads every pair for every candidate."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.racing import TOKENS_PER_PAIR, count_tokens, measure, synthetic
from core.contracts.events import CandidateScored
from core.settings import REPOSITORY


def candidate(objective: float, tokens: int, samples: int) -> CandidateScored:
    return CandidateScored(
        search="evomm",
        candidate=0,
        generation=0,
        recipe={},
        objective=objective,
        ce_safety=objective,
        ce_expert=0.0,
        seconds=0.0,
        samples=samples,
        all_samples=8,
        tokens=tokens,
    )


def test_only_a_candidate_scored_on_all_pairs_is_near() -> None:
    counted = count_tokens(
        [candidate(3.0, 80, 8), candidate(0.9, 10, 1), candidate(1.0, 70, 8), candidate(0.5, 80, 8)], 1.0
    )
    assert (counted.near, counted.tokens, counted.best, counted.candidates) == (160, 240, 0.5, 4)
    assert count_tokens([candidate(0.9, 10, 1)], 1.0).near is None


def test_the_paper_reads_every_pair_for_every_candidate() -> None:
    result = measure(synthetic(40), "synthetic", seeds=1, steps=18, flat=0.005)
    for row in result["searches"].values():
        (run,) = row["seeds"]
        assert run["paper"]["tokens"] == 18 * 2 * 40 * TOKENS_PER_PAIR
        assert run["ours"]["tokens"] < run["paper"]["tokens"]
        assert row["share_to_the_end"]["median"] == pytest.approx(run["ours"]["tokens"] / run["paper"]["tokens"])


def test_the_command_prints_one_object() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.racing", "--tiny", "--json"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    searches = json.loads(done.stdout)["searches"]
    assert {name: len(found["seeds"]) for name, found in searches.items()} == {"evomm": 2, "bayes": 2}
