"""The worker: one terminal event whatever happens, and runs that are started and resumed in processes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError

from core.contracts.events import (
    Cancelled,
    Event,
    Failed,
    Finished,
    PhaseStarted,
    Warned,
)
from core.contracts.results import RunResult
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.errors import DataError, ModelError, RunCancelled, RunError
from core.jobs.worker import new_run_id, resume_run, resume_worker, run_worker, start_run
from core.runs.folder import RunFolder
from core.runs.history import read_view, stop_run
from core.runs.process import acquire_lock
from core.runs.summaries import list_runs
from core.settings import Settings
from tests.core.jobs.fake_jobs import FAKE, job_of, kinds, raising, wait_for
from tests.raising import raises


def test_a_finished_run_leaves_its_record(
    spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult
) -> None:
    events: list[Event] = []
    job = job_of(lambda _: iter([Finished(result=result), Warned(message="after the end")]))
    end = run_worker(spec, settings, folder, job=job, on_event=events.append)
    assert isinstance(end, Finished)
    assert events == folder.read_events()
    assert kinds(folder) == ["run_started", "candidate_scored", "finished"]
    assert folder.read_spec() == spec
    assert folder.result_path.exists()
    assert len(folder.candidates_path.read_text().splitlines()) == 1
    assert read_view(folder).result == result


def test_drafts_of_dead_processes_are_gone_at_the_end(
    spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult
) -> None:
    """An app that is killed while it launches a run leaves one; nobody resumes the run, which goes on."""
    folder.create()
    dead, living = folder.path / ".worker.json.4194303-00ff.tmp", folder.path / f".worker.json.{os.getppid()}-00ff.tmp"
    dead.touch()
    living.touch()
    run_worker(spec, settings, folder, job=job_of(lambda _: iter([Finished(result=result)])))
    assert (dead.exists(), living.exists()) == (False, True)


def test_an_explained_error_becomes_a_message_with_its_hint(
    spec: RunSpec, settings: Settings, folder: RunFolder
) -> None:
    end = run_worker(spec, settings, folder, job=raising(DataError("Row 3 is empty.", "Fill it in.")))
    assert isinstance(end, Failed)
    assert (end.message, end.hint, end.traceback) == ("Row 3 is empty.", "Fill it in.", "")
    assert kinds(folder)[-1] == "failed"


@pytest.mark.parametrize("error", [ZeroDivisionError("division"), SystemExit(3)], ids=["exception", "exit"])
def test_a_defect_keeps_its_traceback(
    spec: RunSpec, settings: Settings, folder: RunFolder, error: BaseException
) -> None:
    end = run_worker(spec, settings, folder, job=raising(error))
    assert isinstance(end, Failed)
    assert type(error).__name__ in end.message
    assert "in ending" in end.traceback


@pytest.mark.parametrize("error", [RunCancelled(), KeyboardInterrupt()], ids=["asked", "ctrl-c"])
def test_an_interruption_is_a_cancellation(
    spec: RunSpec, settings: Settings, folder: RunFolder, error: BaseException
) -> None:
    assert isinstance(run_worker(spec, settings, folder, job=raising(error)), Cancelled)
    assert kinds(folder) == ["run_started", "candidate_scored", "cancelled"]


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/merged/model.safetensors"), "/merged/model.safetensors"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "no space"),
        (OSError("No space left on device (os error 28)"), "no space"),
    ],
)
def test_a_full_disk_anywhere_in_the_job_is_explained(
    error: Exception, named: str, spec: RunSpec, settings: Settings, folder: RunFolder
) -> None:
    end = run_worker(spec, settings, folder, job=raising(error))
    assert isinstance(end, Failed)
    assert named in end.message and "disk space" in end.hint
    assert end.traceback == ""


def test_a_job_that_just_ends_has_failed(spec: RunSpec, settings: Settings, folder: RunFolder) -> None:
    end = run_worker(spec, settings, folder, job=job_of(lambda _: iter(())))
    assert isinstance(end, Failed)
    assert "RuntimeError" in end.message


def test_a_result_that_cannot_be_written_is_a_failure(
    spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult
) -> None:
    def ending(_: Callable[[], bool]) -> Iterator[Event]:
        folder.result_path.mkdir()
        yield Finished(result=result)

    end = run_worker(spec, settings, folder, job=job_of(ending))
    assert isinstance(end, Failed)
    assert kinds(folder)[-1] == "failed"


def test_the_stop_file_is_seen_even_by_a_job_that_never_asks(
    spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult
) -> None:
    def ending(_: Callable[[], bool]) -> Iterator[Event]:
        folder.request_stop()
        yield PhaseStarted(phase="export")
        yield Finished(result=result)

    assert isinstance(run_worker(spec, settings, folder, job=job_of(ending)), Cancelled)
    assert kinds(folder)[-2:] == ["phase_started", "cancelled"]


def test_sigterm_cancels_and_a_swallowed_one_is_remembered(
    spec: RunSpec, settings: Settings, folder: RunFolder
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def ending(should_stop: Callable[[], bool]) -> Iterator[Event]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            assert should_stop()
        yield Warned(message="a library went on")
        raise AssertionError("the job continued after a stop was requested")

    assert isinstance(run_worker(spec, settings, folder, job=job_of(ending)), Cancelled)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_runs_in_a_thread_too(spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult) -> None:
    job = job_of(lambda _: iter([Finished(result=result)]))
    thread = threading.Thread(target=run_worker, args=(spec, settings, folder), kwargs={"job": job})
    thread.start()
    thread.join()
    assert kinds(folder)[-1] == "finished"


def test_a_worker_whose_run_was_ended_by_another_process_stops_and_adds_nothing(
    spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult
) -> None:
    def ending(_: Callable[[], bool]) -> Iterator[Event]:
        folder.append_terminal(Failed(message="The worker stopped without a message."))
        yield Warned(message="late")
        yield Finished(result=result)

    end = run_worker(spec, settings, folder, job=job_of(ending))
    assert isinstance(end, Failed)
    assert kinds(folder) == ["run_started", "candidate_scored", "failed"]
    assert not folder.result_path.exists()


def test_a_second_run_in_the_same_folder_is_refused(spec: RunSpec, settings: Settings, folder: RunFolder) -> None:
    run_worker(spec, settings, folder, job=raising(RunCancelled()))
    with raises(RunError, "folder-taken"):
        run_worker(spec, settings, folder, job=raising(RunCancelled()))


def test_one_run_at_a_time(start: Callable[[str], RunFolder], spec: RunSpec, settings: Settings) -> None:
    first = start("polite")
    with raises(RunError, "machine-busy") as caught:
        start_run(spec, settings)
    assert first.run_id in caught.value.message
    assert [summary.run_id for summary in list_runs(settings)] == [first.run_id]
    stop_run(first)
    worker = first.read_worker()
    assert worker is not None
    wait_for(lambda: not worker.alive)
    stop_run(start("polite"))
    assert len(list_runs(settings)) == 2


def test_a_stopped_run_is_resumed_in_a_process_of_its_own(
    start: Callable[[str], RunFolder], spec: RunSpec, settings: Settings
) -> None:
    folder = start("polite")
    with raises(RunError, "machine-busy"):
        resume_run(folder, settings)
    with raises(RunError, "run-at-work"):
        resume_worker(settings, folder)
    first = folder.read_worker()
    assert first is not None and stop_run(folder).status == "cancelled"
    wait_for(lambda: not first.alive)
    resume_run(folder, settings, command=(sys.executable, str(FAKE), "polite"))
    second = folder.read_worker()
    assert second is not None and second != first
    assert read_view(folder).status == "running", "from the very moment, not only once the process is up"
    with raises(RunError, "machine-busy"):
        start_run(spec, settings)
    wait_for(lambda: kinds(folder)[-1] == "phase_started")
    assert os.getsid(second.pid) == second.pid
    assert stop_run(folder).status == "cancelled"
    assert kinds(folder).count("cancelled") == 1
    assert kinds(folder)[:3] == ["run_started", "phase_started", "resumed"]


def test_a_resumed_run_whose_process_cannot_start_is_over_again(
    spec: RunSpec, settings: Settings, folder: RunFolder
) -> None:
    run_worker(spec, settings, folder, job=raising(RunCancelled()))
    with raises(RunError, "worker-not-started"):
        resume_run(folder, settings, command=("/no/such/program",))
    assert kinds(folder) == ["run_started", "candidate_scored", "resumed", "failed"]
    acquire_lock(settings.runs, Path("/x")).release()


def test_a_worker_outlives_the_session_that_started_it(start: Callable[[str], RunFolder]) -> None:
    worker = start("polite").read_worker()
    assert worker is not None
    assert os.getsid(worker.pid) == worker.pid != os.getsid(0)


def test_the_real_worker_is_reached_and_its_end_recorded(settings: Settings, tmp_path: Path) -> None:
    nowhere = {"base": str(tmp_path / "nowhere"), "experts": [{"model": str(tmp_path / "nowhere-else")}]}
    spec = spec_from_dict({"pool": nowhere, "data": {"safety": {"source": "file", "path": "safety.jsonl"}}})
    folder = RunFolder(settings.runs / start_run(spec, settings))
    wait_for(lambda: read_view(folder).over, timeout_s=120.0)
    view = read_view(folder)
    assert view.status == "failed"
    assert str(tmp_path / "nowhere") in view.message, folder.log_path.read_text()
    assert f"Run folder: {folder.path}" in folder.log_path.read_text()


def test_a_command_that_cannot_start_leaves_no_folder(spec: RunSpec, settings: Settings) -> None:
    with raises(RunError, "worker-not-started"):
        start_run(spec, settings, command=("/no/such/program",))
    assert list_runs(settings) == []
    acquire_lock(settings.runs, Path("/x")).release()


def test_run_ids_sort_by_time_and_differ() -> None:
    ids = [new_run_id() for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(len(run_id) == len("YYYYMMDD-HHMMSS-xxxxxxxx") for run_id in ids)
    assert [run_id[:15] for run_id in ids] == sorted(run_id[:15] for run_id in ids)


def caused(error: Exception, cause: Exception) -> Exception:
    """An error with its cause, as `raise error from cause` makes it."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("can't start new thread"),
        ImportError("_hashing_fast.so: failed to map segment from shared object"),
        caused(ModelError("a/model cannot be loaded: can't start new thread"), RuntimeError("can't start new thread")),
        caused(DataError("The rows cannot be read."), MemoryError()),
    ],
)  # fmt: skip
def test_a_lack_of_memory_is_called_that(
    spec: RunSpec, settings: Settings, folder: RunFolder, error: Exception
) -> None:
    end = run_worker(spec, settings, folder, job=raising(error))
    assert isinstance(end, Failed) and "memory" in end.message and "pool.memory" in end.hint and not end.traceback
