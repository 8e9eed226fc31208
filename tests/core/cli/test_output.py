"""What is printed where: nothing but the result on standard output, and a line for each step."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from core.cli.output import describe_event, print_json, print_models, print_table, results_only
from core.contracts.events import CandidateScored, Failed, PhaseStarted, Progress, SampleSeen, Warned
from core.contracts.results import ModelResult, Rate


def test_output_of_libraries_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with results_only():
        sys.stdout.write("from Python\n")
        os.write(1, b"from below\n")
        subprocess.run(["echo", "from a child"], check=True)
    print_json({"rate": 0.5})
    captured = capfd.readouterr()
    assert captured.out == '{\n  "rate": 0.5\n}\n'
    assert {"from Python", "from below", "from a child"} <= set(captured.err.splitlines())


def test_standard_output_is_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), results_only():
        raise ValueError("inside")
    os.write(1, b"again\n")
    assert capfd.readouterr().out == "again\n"


def test_table_columns_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("model", "n"), [("a", "1"), ("longer name", "2")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["model        n", "-----------  -", "a            1", "longer name  2"]


def test_models_show_their_intervals_and_dashes_where_nothing_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    rate = Rate(rate=0.9, low=0.7, high=0.97, n=20)
    merged = ModelResult(
        name="merged",
        role="merged",
        alignment=rate,
        accuracy={"elements": rate},
        ce_safety=0.51234,
        recipe={"method": "ties", "weight": [0.512345]},
    )
    print_models([merged, ModelResult(name="demo/chemistry", role="parent")])
    _, _, first, second = capsys.readouterr().out.splitlines()
    assert "0.90 [0.70-0.97]" in first
    assert "elements 90.0%" in first
    assert "0.512" in first
    assert '"weight": [0.512]' in first
    assert second.split() == ["demo/chemistry", "parent", *["-"] * 6]


def test_each_step_has_its_line_and_samples_have_none() -> None:
    scored = CandidateScored(
        search="evomm",
        candidate=3,
        generation=1,
        recipe={},
        objective=1.25,
        ce_safety=1.0,
        ce_expert=1.0,
        seconds=0.1,
    )
    assert describe_event(PhaseStarted(phase="search", total=20)) == "== search (20)"
    assert describe_event(Progress(phase="search", done=3, total=20, seconds_left=8.4)) == "search: 3/20, 8 s left"
    assert "objective 1.2500" in str(describe_event(scored))
    assert describe_event(scored.model_copy(update={"failure": "not finite"})) == (
        "evomm: candidate 3, generation 1: not finite"
    )
    assert describe_event(Warned(message="Few pairs.", hint="Raise k.")) == "Warning: Few pairs. Raise k."
    assert describe_event(Failed(message="No memory.", hint="Less.")) == "Error: No memory.\nLess."
    assert describe_event(SampleSeen(dataset="safety", question="How do I pick a lock?", kept=True)) is None
