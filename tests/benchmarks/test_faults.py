"""Fault injection: its trials cover every phase, its checks find damage, and killed runs end like undisturbed ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import __main__ as command
from benchmarks.faults.folder_checks import differences, ending_of, half_written, leftovers, saved_sha256
from benchmarks.faults.processes import count_steps
from benchmarks.faults.scenarios import NAMES, make_scenarios
from benchmarks.faults.trial import PHASES, TARGETS, Plan, Trial, plan_trial
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.settings import REPOSITORY, Settings
from safemerge_ui.views.progress import ending, run_line
from tests.core.jobs.resuming import DEAD

RECORDED = REPOSITORY / "tests" / "recorded_runs" / "0.1.0"


def _run(trials: int, seed: int) -> dict[str, Any]:
    arguments = ["--trials", str(trials), "--seed", str(seed), "--json", "--forked"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if report["failures"] else 0)
    return report


def test_killed_runs_end_like_undisturbed_ones() -> None:
    report = _run(trials=3, seed=11)
    assert report["failures"] == [] and report["ended"] == {"equal": 3, "unequal": 0, "unresumable": 0}
    assert report["kills"] >= 3 and sum(sum(one.values()) for one in report["trials_by_phase"].values()) == 3


@pytest.mark.demo
def test_twenty_trials_over_every_phase() -> None:
    report = _run(trials=20, seed=5)
    assert report["failures"] == [] and report["ended"]["equal"] == 20
    assert set(report["trials_by_scenario"]) == set(NAMES)


def test_trials_cover_every_phase_target_and_scenario_and_repeat_with_the_seed() -> None:
    plans = [plan_trial(number, 3, cuts=True) for number in range(135)]
    assert {(plan.phase, plan.target) for plan in plans} == {(phase, one) for phase in PHASES for one in TARGETS}
    assert {(plan.phase, plan.scenario) for plan in plans} == {(phase, one) for phase in PHASES for one in NAMES}
    assert plans == [plan_trial(number, 3, cuts=True) for number in range(135)]
    assert plans != [plan_trial(number, 4, cuts=True) for number in range(135)]
    assert any(plan.cut is not None for plan in plans) and any(plan.again is not None for plan in plans)
    assert all(plan.cut is None for plan in (plan_trial(number, 3, cuts=False) for number in range(135)))


def test_the_scenarios_differ_in_optimizer_and_storage_and_fix_the_number_format(tmp_path: Path) -> None:
    specs = make_scenarios(tmp_path)
    assert {spec.search.optimizer for spec in specs.values()} == {"evomm", "bayes", "gradient"}
    assert {spec.pool.memory for spec in specs.values()} == {"resident", "streamed", "compact"}
    assert {spec.pool.dtype for spec in specs.values()} == {"float32"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RECORDED / "evomm", tmp_path / "runs" / "evomm"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", b'{"half'),
        ("worker.json", b""),
        ("spec.yaml", b"pool: {"),
        ("data/safety.jsonl", b'{"question": "half'),
        ("data/domain.jsonl", b'{"question": "no end"}'),
        ("replies/x.jsonl", b'{"asked"\n'),
        ("events.jsonl", b'{"kind": "prog\n{"kind": "progress"}\n'),
        ("merged/model.safetensors", b"\x40\x00\x00\x00\x00\x00\x00\x00{"),
    ],
)
def test_a_half_written_file_is_found(folder: Path, name: str, content: bytes) -> None:
    assert half_written(folder) == []
    (folder / name).write_bytes(content)
    assert [text.partition(":")[0] for text in half_written(folder)] == [name]


def test_drafts_and_the_last_line_of_a_log_are_no_damage_but_are_not_left_behind(folder: Path) -> None:
    with (folder / "events.jsonl").open("ab") as log:
        log.write(b'{"kind": "prog')
    (folder / ".result.json.1.tmp").write_bytes(b"{")
    (folder / ".merged.partial").mkdir()
    (folder / ".summary.json").write_text("{}")
    assert half_written(folder) == []
    assert leftovers(folder) == [".merged.partial", ".result.json.1.tmp"]


def test_two_ends_differ_in_what_was_changed(folder: Path) -> None:
    run = RunFolder(folder)
    whole = ending_of(run)
    assert len(saved_sha256(run)) == 64 and differences(ending_of(run), whole) == []
    result = json.loads(run.result_path.read_text())
    run.result_path.write_text(json.dumps(result | {"seconds": 1.0}))
    assert differences(ending_of(run), whole) == []
    run.result_path.write_text(json.dumps(result | {"models": []}))
    (folder / "merged" / "README.md").write_text("Another card.")
    assert differences(ending_of(run), whole) == ["merged/README.md", "result.json"]


def test_a_cut_kills_the_process_in_the_middle_of_a_write(tmp_path: Path) -> None:
    target = tmp_path / "file"
    pid = os.fork()
    if pid == 0:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT)
        count_steps(2)
        os.write(fd, b"first")
        os.write(fd, b"12345678")
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == 9 and target.read_bytes() == b"first1234"


def test_a_failed_trial_is_reported_and_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan("evomm", "search", "both", 0.5, None, None)
    good, bad = Trial(plan, "search", 1, "equal"), Trial(plan, "over", 1, "unequal", ["Differs: result.json"])
    reports = iter([command._report([good], 0, 7, 1.0, "forked"), command._report([good, bad], 0, 7, 1.0, "forked")])
    monkeypatch.setattr(command, "run_trials", lambda *_, **__: next(reports))
    assert command.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ended"] == {"equal": 1, "unequal": 0, "unresumable": 0}
    assert command.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["trials_by_phase"] == {"search": {"both": 1}, "over": {"both": 1}}
    assert [(one["trial"], one["end"], one["problems"]) for one in report["failures"]] == [
        (1, "unequal", ["Differs: result.json"])
    ]


def test_the_page_says_what_happened_to_a_killed_run(settings: Settings) -> None:
    run = RunFolder(Path(shutil.copytree(RECORDED / "cancelled", settings.runs / "killed")))
    lines = run.events_path.read_text().splitlines(keepends=True)
    run.events_path.write_text("".join(lines[:-1]))
    run.write_worker(DEAD)
    view = read_view(run)
    html = ending(view) + run_line(view, "killed", 0.0)
    assert "Failed" in html and "stopped without a message" in html and "Resume the run" in html
