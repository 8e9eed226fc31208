"""The record of an export: what pages see of a worker that works, ends, dies or is cancelled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.contracts.events import Cancelled
from core.contracts.run_spec import RunSpec
from core.errors import ModelError, RunError
from core.jobs.worker import run_worker
from core.runs.exports import ExportRecord, cancel_export, latest_export, list_exports
from core.runs.folder import RunFolder
from core.runs.history import delete_run
from core.runs.process import mark_started
from core.settings import Settings
from tests.core.jobs.fake_jobs import job_of
from tests.raising import raises


@pytest.fixture
def run(spec: RunSpec, settings: Settings, folder: RunFolder) -> RunFolder:
    run_worker(spec, settings, folder, job=job_of(lambda _: iter([Cancelled()])))
    return folder


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def record(run: RunFolder, name: str, pid: int) -> ExportRecord:
    made = ExportRecord(run.path / "candidates" / name)
    made.begin("evomm", int(name), mark_started(pid))
    return made


def test_the_record_tells_each_step_and_the_end(run: RunFolder) -> None:
    assert latest_export(run) is None
    made = record(run, "5", os.getpid())
    made.write_step("merging ties")
    status = latest_export(run)
    assert status is not None and (status.candidate, status.state, status.step) == (5, "running", "merging ties")
    made.write_saved("ab" * 32)
    made.write_cancelled()
    status = latest_export(run)
    assert status is not None and (status.state, status.sha256, status.path) == ("saved", "ab" * 32, str(made.target))
    second = record(run, "2", os.getpid())
    second.write_failed(ModelError("lab/x is gated.", "Ask for access."))
    status = latest_export(run)
    assert status is not None and (status.candidate, status.message, status.hint) == (
        2,
        "lab/x is gated.",
        "Ask for access.",
    )
    assert [path.target.name for path in list_exports(run)] == ["2", "5"]


def test_an_export_whose_worker_died_has_failed(run: RunFolder, sleeper: subprocess.Popen[bytes]) -> None:
    made = record(run, "5", sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    status = made.read()
    assert status is not None and status.state == "failed" and str(made.log_path) in status.hint
    with raises(RunError, "no-export"):
        cancel_export(run)


def test_cancelling_ends_the_worker(run: RunFolder, sleeper: subprocess.Popen[bytes]) -> None:
    made = record(run, "5", sleeper.pid)
    cancel_export(run)
    assert sleeper.wait(timeout=10) != 0
    status = made.read()
    assert status is not None and status.state == "cancelled"


def test_an_export_on_another_host_is_not_touched(
    run: RunFolder, settings: Settings, sleeper: subprocess.Popen[bytes]
) -> None:
    made = record(run, "5", sleeper.pid)
    made.write_worker(replace(mark_started(sleeper.pid), host="another-host"))
    status = made.read()
    assert status is not None and status.state == "running"
    with raises(RunError, "worker-elsewhere"):
        cancel_export(run)
    with raises(RunError, "export-at-work"):
        delete_run(run, settings)
    assert sleeper.poll() is None


def test_a_run_is_not_deleted_while_a_candidate_is_saved(run: RunFolder, settings: Settings) -> None:
    made = record(run, "5", os.getpid())
    with raises(RunError, "export-at-work"):
        delete_run(run, settings)
    made.write_saved("ab" * 32)
    delete_run(run, settings)
    assert not run.path.exists()


def test_a_damaged_record_counts_as_none(run: RunFolder, tmp_path: Path) -> None:
    made = record(run, "5", os.getpid())
    made.status_path.write_text("half a")
    assert latest_export(run) is None
