"""The fuzzer: the same seed makes the same inputs, it finds crashes and slow inputs, and every reader withstands it."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_targets import Target, all_targets
from core.errors import DataError
from core.settings import Settings

REFUSED = ("reference", "safetensors index", "table.txt")
"""Targets some of whose examples are refused: folders that are missing, and plain text, which is no table."""


def test_every_reader_withstands_some_thousand_inputs(tmp_path: Path, settings: Settings) -> None:
    report = fuzz.fuzz(all_targets(tmp_path, settings), 2000, seed=7, limit_s=5.0)
    assert report["crashes"] == {} and report["slow"] == []
    assert 0 < report["refused"] < report["inputs"] == sum(report["tried"].values())


def test_every_example_is_read(tmp_path: Path, settings: Settings) -> None:
    names = set()
    for target in all_targets(tmp_path, settings):
        names.add(target.name)
        for example in target.examples:
            outcome = fuzz.try_input(target, example)
            assert not outcome.crash and (not outcome.refused or target.name in REFUSED)
    assert {"spec", "lineage", "card", "json repair", "guard output", "events", "safetensors header"} <= names


def test_the_same_seed_makes_the_same_inputs() -> None:
    first, second, other = (random.Random(seed) for seed in (1, 1, 2))
    examples = (b'{"a": [1, {"b": 2}]}', b"a: 1\n")
    made = [[fuzz.mutated(examples, rng) for _ in range(50)] for rng in (first, second, other)]
    assert made[0] == made[1] != made[2]


def _crash(data: bytes) -> None:
    if len(data) % 2:
        raise KeyError(data)
    raise DataError("Refused.")


def test_a_crash_and_a_slow_input_are_reported_with_their_input() -> None:
    report = fuzz.fuzz([Target("broken", (b"ab", b"abc"), _crash)], 40, seed=0)
    [(place, found)] = report["crashes"].items()
    assert place.startswith("broken: KeyError") and found["input"] and found["count"] + report["refused"] == 40
    slow = fuzz.fuzz([Target("slow", (b"a",), lambda _: time.sleep(0.02))], 2, seed=0, limit_s=0.01)
    assert len(slow["slow"]) == 2 and slow["longest_s"] >= 0.02


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert fuzz.main(["--inputs", "60", "--seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == 60
    monkeypatch.setattr(fuzz, "all_targets", lambda *_: [Target("broken", (b"ab", b"abc"), _crash)])
    assert fuzz.main(["--inputs", "20"]) == 1
    assert "KeyError" in capsys.readouterr().out
