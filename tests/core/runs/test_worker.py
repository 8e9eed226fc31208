"""The worker: one terminal event whatever happens, and runs that can be stopped, killed, looked at and deleted."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import DataError, RunCancelled, RunError
from core.events import (
    Cancelled,
    CandidateScored,
    Event,
    Failed,
    Finished,
    PhaseStarted,
    RunStarted,
    Warned,
    is_terminal,
)
from core.results import RunResult
from core.runs.folder import RunFolder
from core.runs.history import delete_run, list_runs, read_view, settle_run, stop_run
from core.runs.process import ProcessMark, acquire_lock, mark_process
from core.runs.worker import Job, new_run_id, resume_run, resume_worker, run_worker, start_run
from core.settings import Settings
from core.specs import RunSpec, spec_from_dict

FAKE = Path(__file__).with_name("fake_worker.py")
Ending = Callable[[Callable[[], bool]], Iterator[Event]]


def job_of(ending: Ending) -> Job:
    """A job that starts, scores one candidate, and goes on as `ending` does."""

    def job(spec: RunSpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool]) -> Iterator[Event]:
        yield RunStarted(spec=spec.model_dump(mode="json"))
        yield scored(0, 1.25)
        yield from ending(should_stop)

    return job


def raising(error: BaseException) -> Job:
    def ending(_: Callable[[], bool]) -> Iterator[Event]:
        raise error
        yield

    return job_of(ending)


def scored(number: int, objective: float) -> CandidateScored:
    return CandidateScored(
        search="evomm",
        candidate=number,
        generation=0,
        recipe={},
        objective=objective,
        ce_safety=1.0,
        ce_expert=1.0,
        seconds=0.1,
    )


@pytest.fixture
def folder(settings: Settings) -> RunFolder:
    return RunFolder(settings.runs / new_run_id())


@pytest.fixture
def start(spec: RunSpec, settings: Settings) -> Iterator[Callable[[str], RunFolder]]:
    """Starts fake workers that have begun to work, and kills what is left of them."""
    started: list[RunFolder] = []

    def start_fake(how: str) -> RunFolder:
        run_id = start_run(spec, settings, command=(sys.executable, str(FAKE), how))
        started.append(RunFolder(settings.runs / run_id))
        if how != "crash":
            wait_for(lambda: len(started[-1].read_events()) == 2)
        return started[-1]

    yield start_fake
    for folder in started:
        worker = folder.read_worker() if folder.path.exists() else None
        if worker is not None and worker.alive:
            os.kill(worker.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def kinds(folder: RunFolder) -> list[str]:
    return [event.kind for event in folder.read_events()]


def test_a_finished_run_leaves_its_record(
    spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult
) -> None:
    heard: list[Event] = []
    job = job_of(lambda _: iter([Finished(result=result), Warned(message="after the end")]))
    end = run_worker(spec, settings, folder, job=job, tell=heard.append)
    assert isinstance(end, Finished)
    assert heard == folder.read_events()
    assert kinds(folder) == ["run_started", "candidate_scored", "finished"]
    assert folder.read_spec() == spec
    assert folder.result_path.exists()
    assert len(folder.candidates_path.read_text().splitlines()) == 1
    assert read_view(folder).result == result


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


def test_a_full_disk_anywhere_in_the_job_is_explained(spec: RunSpec, settings: Settings, folder: RunFolder) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/merged/model.safetensors")
    end = run_worker(spec, settings, folder, job=raising(error))
    assert isinstance(end, Failed)
    assert "/merged/model.safetensors" in end.message
    assert end.traceback == ""


def test_a_job_that_just_ends_has_failed(spec: RunSpec, settings: Settings, folder: RunFolder) -> None:
    end = run_worker(spec, settings, folder, job=job_of(lambda _: iter(())))
    assert isinstance(end, Failed)
    assert "without a result" in end.message


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
        raise AssertionError("the job went on after it was told to stop")

    assert isinstance(run_worker(spec, settings, folder, job=job_of(ending)), Cancelled)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_runs_in_a_thread_too(spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult) -> None:
    job = job_of(lambda _: iter([Finished(result=result)]))
    thread = threading.Thread(target=run_worker, args=(spec, settings, folder), kwargs={"job": job})
    thread.start()
    thread.join()
    assert kinds(folder)[-1] == "finished"


def test_a_second_run_in_the_same_folder_is_refused(spec: RunSpec, settings: Settings, folder: RunFolder) -> None:
    run_worker(spec, settings, folder, job=raising(RunCancelled()))
    with pytest.raises(RunError, match="already holds a run"):
        run_worker(spec, settings, folder, job=raising(RunCancelled()))


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


def test_one_run_at_a_time(start: Callable[[str], RunFolder], spec: RunSpec, settings: Settings) -> None:
    first = start("polite")
    with pytest.raises(RunError, match=first.run_id):
        start_run(spec, settings)
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
    with pytest.raises(RunError, match="Another run is at work"):
        resume_run(folder, settings)
    with pytest.raises(RunError, match=r"is at work \(process \d+\)"):
        resume_worker(settings, folder)
    first = folder.read_worker()
    assert first is not None and stop_run(folder).status == "cancelled"
    wait_for(lambda: not first.alive)
    resume_run(folder, settings, command=(sys.executable, str(FAKE), "polite"))
    second = folder.read_worker()
    assert second is not None and second != first
    assert read_view(folder).status == "running", "from the very moment, not only once the process is up"
    with pytest.raises(RunError, match=folder.run_id):
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
    with pytest.raises(RunError, match="cannot be started"):
        resume_run(folder, settings, command=("/no/such/program",))
    assert kinds(folder) == ["run_started", "candidate_scored", "resumed", "failed"]
    acquire_lock(settings.runs, Path("/x")).release()


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
    assert "without saying why" not in view.message, folder.log_path.read_text()
    assert f"Run folder: {folder.path}" in folder.log_path.read_text()


def test_a_command_that_cannot_start_leaves_no_folder(spec: RunSpec, settings: Settings) -> None:
    with pytest.raises(RunError, match="cannot be started"):
        start_run(spec, settings, command=("/no/such/program",))
    assert list_runs(settings) == []
    acquire_lock(settings.runs, Path("/x")).release()


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


def test_run_ids_sort_by_time_and_differ() -> None:
    ids = [new_run_id() for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(len(run_id) == len("YYYYMMDD-HHMMSS-xxxx") for run_id in ids)
    assert [run_id[:15] for run_id in ids] == sorted(run_id[:15] for run_id in ids)
