"""Runs seen from outside: ended once if their worker died, stopped whatever their job does, listed, deleted."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.contracts.events import Cancelled, RunStarted, is_terminal
from core.contracts.run_spec import RunSpec
from core.errors import RunCancelled, RunError
from core.jobs.worker import resume_run, resume_worker, run_worker
from core.runs.folder import RunFolder
from core.runs.history import START_S, delete_run, end_if_worker_died, read_view, stop_run
from core.runs.process import ProcessMark, acquire_lock, mark_process
from core.runs.summaries import list_runs
from core.settings import Settings
from tests.core.jobs.fake_jobs import FAKE, kinds, raising, wait_for
from tests.raising import raises


def test_a_killed_run_is_marked_failed_once_by_many_viewers(start: Callable[[str], RunFolder]) -> None:
    folder = start("deaf")
    worker = folder.read_worker()
    assert worker is not None
    assert read_view(folder).status == "running"
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not worker.alive)
    viewers = [threading.Thread(target=read_view, args=(folder,)) for _ in range(8)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    view = read_view(folder)
    assert view.status == "failed"
    assert str(folder.log_path) in view.hint
    assert sum(is_terminal(event) for event in folder.read_events()) == 1


def test_a_worker_that_crashes_at_once_is_failed_and_its_output_is_kept(start: Callable[[str], RunFolder]) -> None:
    folder = start("crash")
    wait_for(lambda: read_view(folder).status == "failed")
    assert "no such library" in folder.log_path.read_text()


def test_stop_ends_a_job_that_listens(start: Callable[[str], RunFolder]) -> None:
    folder = start("polite")
    began = time.monotonic()
    assert stop_run(folder).status == "cancelled"
    assert time.monotonic() - began < 10
    assert stop_run(folder).status == "cancelled"


@pytest.mark.parametrize("how", ["deaf", "stone"])
def test_stop_ends_a_job_that_does_not_listen(start: Callable[[str], RunFolder], how: str) -> None:
    folder = start(how)
    assert stop_run(folder, grace_s=0.5).status == "cancelled"
    assert kinds(folder) == ["run_started", "phase_started", "cancelled"]


@pytest.mark.parametrize("how", ["polite", "deaf", "stone"])
def test_stop_frees_the_device_within_five_seconds(start: Callable[[str], RunFolder], how: str) -> None:
    folder = start(how)
    worker = folder.read_worker()
    assert worker is not None
    began = time.monotonic()
    assert stop_run(folder).status == "cancelled"
    wait_for(lambda: not worker.alive)
    assert time.monotonic() - began < 5


def test_a_paused_worker_is_stopped_and_its_run_resumes(start: Callable[[str], RunFolder], settings: Settings) -> None:
    folder = start("polite")
    worker = folder.read_worker()
    assert worker is not None
    os.kill(worker.pid, signal.SIGSTOP)
    assert read_view(folder).status == "running"
    view = stop_run(folder, grace_s=0.5)
    assert view.status == "cancelled"
    wait_for(lambda: not worker.alive)
    resume_run(folder, settings, command=(sys.executable, str(FAKE), "polite"))
    assert read_view(folder).status == "running"
    assert stop_run(folder).status == "cancelled"


def test_stop_without_a_worker_says_so(folder: RunFolder, spec: RunSpec) -> None:
    folder.create()
    folder.write_spec(spec)
    with raises(RunError, "no-worker"):
        stop_run(folder)
    assert not folder.stop_requested


def test_a_viewer_that_saw_the_worker_dead_does_not_end_the_resumed_run(
    spec: RunSpec, settings: Settings, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_worker(spec, settings, folder, job=raising(RunCancelled()))
    mark = mark_process(os.getpid())
    assert mark is not None
    folder.write_worker(ProcessMark(mark.pid, "an earlier process"))
    read, looks = RunFolder.read_worker, iter([True])

    def resumed_in_between(self: RunFolder) -> ProcessMark | None:
        worker = read(self)
        if next(looks, False):
            folder.reopen(mark)
        return worker

    monkeypatch.setattr(RunFolder, "read_worker", resumed_in_between)
    end_if_worker_died(folder)
    assert kinds(folder)[-1] == "resumed"


def test_a_run_whose_worker_is_on_another_host_is_neither_ended_nor_deleted_nor_resumed(
    start: Callable[[str], RunFolder], settings: Settings
) -> None:
    folder = start("polite")
    worker = folder.read_worker()
    assert worker is not None
    folder.write_worker(replace(worker, host="another-host"))
    assert read_view(folder).status == "running"
    assert [run.status for run in list_runs(settings)] == ["running"]
    log = folder.events_path.read_bytes()
    for refused in (
        lambda: delete_run(folder, settings),
        lambda: resume_worker(settings, folder),
        lambda: folder.reopen(worker),
    ):
        with raises(RunError, "worker-elsewhere") as caught:
            refused()
        assert "another-host" in caught.value.message and str(folder.worker_path) in caught.value.hint
    assert folder.events_path.read_bytes() == log
    folder.write_worker(worker)
    assert stop_run(folder).status == "cancelled"


def test_a_worker_on_another_host_is_asked_to_stop_and_never_killed(start: Callable[[str], RunFolder]) -> None:
    polite, deaf = start("polite"), None
    worker = polite.read_worker()
    assert worker is not None
    polite.write_worker(replace(worker, host="another-host"))
    assert stop_run(polite).status == "cancelled"
    wait_for(lambda: not worker.alive)
    deaf = start("deaf")
    worker = deaf.read_worker()
    assert worker is not None
    deaf.write_worker(replace(worker, host="another-host"))
    with raises(RunError, "worker-elsewhere"):
        stop_run(deaf, elsewhere_s=0.3)
    assert worker.alive and deaf.stop_requested
    deaf.write_worker(worker)


def test_an_ended_run_of_another_host_is_resumed_and_deleted_here(
    spec: RunSpec, settings: Settings, folder: RunFolder
) -> None:
    run_worker(spec, settings, folder, job=raising(RunCancelled()))
    worker = folder.read_worker()
    assert worker is not None
    folder.write_worker(replace(worker, host="another-host"))
    folder.reopen(worker)
    assert kinds(folder)[-1] == "resumed"
    folder.append_terminal(Cancelled())
    folder.write_worker(replace(worker, host="another-host"))
    delete_run(folder, settings)
    assert not folder.path.exists()


def test_the_log_of_a_live_worker_is_left_alone(folder: RunFolder) -> None:
    folder.create()
    folder.append_event(RunStarted(spec={}))
    mark = mark_process(os.getpid())
    assert mark is not None
    folder.write_worker(mark)
    end_if_worker_died(folder)
    assert kinds(folder) == ["run_started"]
    folder.write_worker(ProcessMark(mark.pid, "an earlier process"))
    end_if_worker_died(folder)
    assert kinds(folder) == ["run_started", "failed"]


def test_only_runs_that_are_over_and_ours_are_deleted(
    spec: RunSpec, settings: Settings, start: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    running = start("polite")
    with raises(RunError, "run-at-work"):
        delete_run(running, settings)
    stop_run(running)
    elsewhere = RunFolder(tmp_path / "elsewhere")
    shutil.copytree(running.path, elsewhere.path)
    link = RunFolder(settings.runs / "link")
    link.path.symlink_to(elsewhere.path)
    for foreign in (elsewhere, link, RunFolder(settings.runs), RunFolder(settings.runs / "missing")):
        with raises(RunError, "not-a-run"):
            delete_run(foreign, settings)
    delete_run(running, settings)
    assert not running.path.exists()
    assert elsewhere.events_path.exists()


def test_a_run_whose_launch_was_killed_is_over_and_resumes(
    spec: RunSpec, settings: Settings, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app died after it had written the spec and before a worker was recorded."""
    folder.create()
    folder.write_spec(spec)
    assert read_view(folder).status == "waiting"
    long_ago = time.time() - START_S - 5
    os.utime(folder.spec_path, (long_ago, long_ago))
    with acquire_lock(settings.runs, folder.path):
        assert read_view(folder).status == "waiting", "it is being launched"
    view = read_view(folder)
    assert view.status == "failed" and "began" in view.message and "Resume" in view.hint
    assert [run.status for run in list_runs(settings)] == ["failed"]
    resume_run(folder, settings, command=(sys.executable, str(FAKE), "polite"))
    wait_for(lambda: kinds(folder)[:1] == ["run_started"])
    assert stop_run(folder).status == "cancelled"
