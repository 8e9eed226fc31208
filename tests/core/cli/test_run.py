"""`run` and `demo`: exit codes, the table, and the folder that is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.cli.main import main
from core.contracts.events import Event, Finished, RunStarted, Warned
from core.contracts.results import ModelResult, RunResult
from core.contracts.run_spec import spec_from_dict
from core.errors import ModelError, RunCancelled
from core.runs.folder import RunFolder
from core.runs.process import acquire_lock
from core.settings import Settings
from tests.core.cli.conftest import SPEC

SetJob = Callable[[Callable[[], Iterator[Event]]], None]
WANTED = spec_from_dict(SPEC).model_dump(mode="json")
RESULT = RunResult(
    spec={}, seconds=1.0, peak_memory_bytes=1, models=(ModelResult(name="merged", role="merged", ce_safety=0.5),)
)


def finishing() -> Iterator[Event]:
    yield RunStarted(spec={})
    sys.stdout.write("a library talks\n")
    yield Warned(message="Few pairs.")
    yield Finished(result=RESULT)


def failing() -> Iterator[Event]:
    yield RunStarted(spec=WANTED)
    raise ModelError("demo/x does not exist.", "Choose demo/aligned.")


def stopping() -> Iterator[Event]:
    yield RunStarted(spec=WANTED)
    raise RunCancelled


def test_a_finished_run_exits_0_with_its_table_and_folder(
    spec_file: Path, tmp_path: Path, set_job: SetJob, capsys: pytest.CaptureFixture[str]
) -> None:
    set_job(finishing)
    out = tmp_path / "out"
    assert main(["run", str(spec_file), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("model ")
    assert "merged" in captured.out
    assert "a library talks" in captured.err
    assert captured.out.endswith(f"Run folder: {out}\n")
    assert "Warning: Few pairs." in captured.err
    assert json.loads((out / "result.json").read_text())["models"][0]["ce_safety"] == 0.5
    assert (out / "spec.yaml").read_text() == spec_file.read_text()


def test_a_failed_run_exits_1_and_says_what_to_do(
    spec_file: Path, tmp_path: Path, set_job: SetJob, capsys: pytest.CaptureFixture[str]
) -> None:
    set_job(failing)
    assert main(["run", str(spec_file), "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error: demo/x does not exist.\nChoose demo/aligned." in captured.err
    assert "Traceback" not in captured.err


def test_a_stopped_run_exits_130(spec_file: Path, tmp_path: Path, set_job: SetJob) -> None:
    set_job(stopping)
    assert main(["run", str(spec_file), "--out", str(tmp_path / "out")]) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_the_shell_ends_the_run_as_cancelled(
    spec_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    code = (
        "import sys, time, types\n"
        "from core.contracts.events import RunStarted\n"
        "def run_job(spec, settings, folder, should_stop):\n"
        "    yield RunStarted(spec={})\n"
        "    print('working', file=sys.stderr, flush=True)\n"
        "    time.sleep(600)\n"
        "sys.modules['core.jobs.merge_job'] = types.SimpleNamespace(run_job=run_job)\n"
        "from core.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "run", str(spec_file), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("working" in line for line in process.stderr)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert [event.kind for event in RunFolder(tmp_path / "out").read_events()] == ["run_started", "cancelled"]


def test_a_second_run_into_the_folder_exits_1(
    spec_file: Path, tmp_path: Path, set_job: SetJob, capsys: pytest.CaptureFixture[str]
) -> None:
    set_job(finishing)
    arguments = ["run", str(spec_file), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    before = (tmp_path / "out" / "events.jsonl").read_bytes()
    assert main(arguments) == 1
    assert str(tmp_path / "out") in capsys.readouterr().err
    assert (tmp_path / "out" / "events.jsonl").read_bytes() == before


def test_a_run_beside_another_exits_1_and_names_it(
    spec_file: Path, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with acquire_lock(settings.runs, settings.runs / "20250101-busy"):
        assert main(["run", str(spec_file), "--out", str(tmp_path / "out")]) == 1
    assert "20250101-busy" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_is_resumed_to_its_end(
    spec_file: Path, tmp_path: Path, set_job: SetJob, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    set_job(stopping)
    assert main(["run", str(spec_file), "--out", str(out)]) == 130
    set_job(lambda: iter([Warned(message="Few pairs."), Finished(result=RESULT)]))
    assert main(["resume", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("model ") and captured.out.endswith(f"Run folder: {out}\n")
    assert "Warning: Few pairs." in captured.err
    kinds = [event.kind for event in RunFolder(out).read_events()]
    assert kinds == ["run_started", "resumed", "warned", "finished"]
    assert main(["resume", str(out)]) == 0
    captured = capsys.readouterr()
    assert "finished" in captured.err and captured.out.startswith("model ")
    assert [event.kind for event in RunFolder(out).read_events()] == kinds


def test_a_run_that_cannot_be_resumed_says_why(
    spec_file: Path, tmp_path: Path, set_job: SetJob, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["resume", str(out)]) == 1
    assert str(out) in capsys.readouterr().err
    assert not out.exists()
    set_job(failing)
    main(["run", str(spec_file), "--out", str(out)])
    before = (out / "events.jsonl").read_bytes()
    with acquire_lock(settings.runs, settings.runs / "20250101-busy"):
        assert main(["resume", str(out)]) == 1
    assert "20250101-busy" in capsys.readouterr().err
    (out / "spec.yaml").write_text(spec_file.read_text().replace("alpha: 0.3", "alpha: 0.4"))
    assert main(["resume", str(out)]) == 2
    assert str(out / "spec.yaml") in capsys.readouterr().err
    assert (out / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("option", ["--prompts", "--outside"])
def test_outside_prompts_are_added_to_the_spec(option: str, spec_file: Path, tmp_path: Path, set_job: SetJob) -> None:
    set_job(finishing)
    out = tmp_path / "out"
    assert main(["run", str(spec_file), "--out", str(out), option, "others.jsonl"]) == 0
    written = RunFolder(out).read_spec().model_dump(mode="json")
    assert written["evaluation"].pop("outside") == "others.jsonl"
    usual = spec_from_dict(SPEC).model_dump(mode="json")
    assert usual["evaluation"].pop("outside") is None and written == usual


@pytest.mark.parametrize(("flags", "method"), [([], "ties"), (["--quick"], "linear")])
def test_demo_prepares_the_base_and_runs_its_spec_among_the_runs(
    flags: list[str],
    method: str,
    spec_file: Path,
    tmp_path: Path,
    settings: Settings,
    set_job: SetJob,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    specs = tmp_path / "assets" / "specs"
    specs.mkdir(parents=True)
    (specs / "demo.yaml").write_text(spec_file.read_text())
    (specs / "demo_quick.yaml").write_text(spec_file.read_text().replace("method: ties", "method: linear"))
    monkeypatch.setattr("core.cli.run.ASSETS", tmp_path / "assets")
    monkeypatch.setattr("core.models.demo_base.ensure_base", lambda _, progress: progress("reading", 1, 2))
    set_job(finishing)
    assert main(["demo", *flags, "--prompts", "others.jsonl"]) == 0
    (folder,) = [path for path in settings.runs.iterdir() if path.is_dir()]
    spec = RunFolder(folder).read_spec()
    assert (spec.search.method, spec.evaluation.outside) == (method, "others.jsonl")
    captured = capsys.readouterr()
    assert str(folder) in captured.out
    assert "reading 1/2" in captured.err
