"""Runs seen from outside: settled once, stopped whatever their job does, listed, deleted."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.contracts.events import (
    Finished,
    RunStarted,
    is_terminal,
)
from core.contracts.results import RunResult
from core.contracts.run_spec import RunSpec
from core.errors import DataError, RunCancelled, RunError
from core.jobs.worker import run_worker
from core.runs.folder import RunFolder
from core.runs.history import delete_run, list_runs, read_view, settle_run, stop_run
from core.runs.process import ProcessMark, mark_process
from core.settings import Settings
from tests.core.jobs.fake_jobs import job_of, kinds, raising, scored, wait_for


def test_kill_9_is_marked_failed_once_by_whoever_looks(start: Callable[[str], RunFolder]) -> None:
    folder = start("deaf")
    worker = folder.read_worker()
    assert worker is not None
    assert read_view(folder).status == "running"
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not worker.alive)
    lookers = [threading.Thread(target=read_view, args=(folder,)) for _ in range(8)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    view = read_view(folder)
    assert view.status == "failed"
    assert "without saying why" in view.message
    assert "worker.log" in view.hint
    assert sum(is_terminal(event) for event in folder.read_events()) == 1


def test_a_worker_that_crashes_at_once_is_failed_and_its_words_are_kept(start: Callable[[str], RunFolder]) -> None:
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


def test_stop_without_a_worker_says_so(folder: RunFolder, spec: RunSpec) -> None:
    folder.create()
    folder.write_spec(spec)
    with pytest.raises(RunError, match="Nothing works on"):
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
            folder.take_up(mark)
        return worker

    monkeypatch.setattr(RunFolder, "read_worker", resumed_in_between)
    settle_run(folder)
    assert kinds(folder)[-1] == "resumed"


def test_the_history_is_newest_first_and_survives_a_broken_folder(
    spec: RunSpec, settings: Settings, result: RunResult
) -> None:
    assert list_runs(settings) == []
    old, new = RunFolder(settings.runs / "20250101-000000-aaaa"), RunFolder(settings.runs / "20250102-000000-aaaa")
    run_worker(spec, settings, old, job=job_of(lambda _: iter([scored(1, 0.5), Finished(result=result)])))
    run_worker(spec, settings, new, job=raising(DataError("Row 3 is empty.")))
    broken = RunFolder(settings.runs / "20250103-000000-aaaa")
    broken.create()
    broken.events_path.write_text("nonsense\n")
    (settings.runs / "not-a-run").mkdir()

    summaries = list_runs(settings)
    assert [(each.run_id[:8], each.status) for each in summaries] == [
        ("20250103", "failed"),
        ("20250102", "failed"),
        ("20250101", "finished"),
    ]
    assert "nonsense" in summaries[0].message
    assert summaries[1].message == "Row 3 is empty."
    assert summaries[2].pool == ("demo/aligned", "demo/chemistry")
    assert (summaries[2].method, summaries[2].best_objective) == ("ties", 0.5)


def test_settling_leaves_a_living_workers_log_alone(folder: RunFolder) -> None:
    folder.create()
    folder.append_event(RunStarted(spec={}))
    mark = mark_process(os.getpid())
    assert mark is not None
    folder.write_worker(mark)
    settle_run(folder)
    assert kinds(folder) == ["run_started"]
    folder.write_worker(ProcessMark(mark.pid, "an earlier process"))
    settle_run(folder)
    assert kinds(folder) == ["run_started", "failed"]


def test_only_runs_that_are_over_and_ours_are_deleted(
    spec: RunSpec, settings: Settings, start: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    running = start("polite")
    with pytest.raises(RunError, match="not over"):
        delete_run(running, settings)
    stop_run(running)
    elsewhere = RunFolder(tmp_path / "elsewhere")
    shutil.copytree(running.path, elsewhere.path)
    link = RunFolder(settings.runs / "link")
    link.path.symlink_to(elsewhere.path)
    for foreign in (elsewhere, link, RunFolder(settings.runs), RunFolder(settings.runs / "missing")):
        with pytest.raises(RunError, match="is not a run"):
            delete_run(foreign, settings)
    delete_run(running, settings)
    assert not running.path.exists()
    assert elsewhere.events_path.exists()
