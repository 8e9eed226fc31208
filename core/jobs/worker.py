"""The worker process of a run: the job in it, and how other processes start it.

In the process, `run_worker` and `resume_worker` write a job's events into the run's folder. They are the boundary where
every exception becomes the run's terminal event. From outside, `start_run` and `resume_run` start such a process, which
outlives the process that started it. Other operations on existing runs are in `core.runs.history`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.events import Cancelled, CandidateScored, Event, Failed, Finished, is_terminal
from core.contracts.steady_time import steady_time
from core.errors import RunCancelled, RunError
from core.jobs.failures import failure_of
from core.jobs.signals import ignore_interrupts, interruptible
from core.runs.folder import RunFolder
from core.runs.process import acquire_lock, mark_started, start_detached
from core.runs.replay import Replay, read_replay
from core.settings import REPOSITORY, Settings

Job = Callable[[Any, Settings, RunFolder, Callable[[], bool]], Iterator[Event]]
"""Yields the events of a run of one kind of spec (`AnySpec`)."""
ResumedJob = Callable[[Any, Settings, RunFolder, Callable[[], bool], Replay], Iterator[Event]]
Spawn = Callable[[Settings, Sequence[str], Path, int], int]
"""Starts a worker process as `spawn_worker` does."""

WORKER_COMMAND = (sys.executable, "-m", "core", "run")
RESUME_COMMAND = (sys.executable, "-m", "core", "resume")


def new_run_id() -> str:
    """A unique name for a run that sorts by time (UTC)."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def dispatch_job(
    spec: AnySpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool], *replay: Replay
) -> Iterator[Event]:
    """Run the job for the spec's kind. It is imported here, so that looking at runs does not load the engine."""
    if isinstance(spec, ComparisonSpec):
        from core.jobs.comparison_job import run_comparison

        yield from run_comparison(spec, settings, folder, should_stop, *replay)
    else:
        from core.jobs.merge_job import run_job

        yield from run_job(spec, settings, folder, should_stop, *replay)


def ignore_event(_event: Event) -> None:
    """Do nothing with an event."""


def run_worker(
    spec: AnySpec,
    settings: Settings,
    folder: RunFolder,
    *,
    job: Job = dispatch_job,
    on_event: Callable[[Event], None] = ignore_event,
) -> Event:
    """Run a job in this process and record it; the log always ends in exactly one terminal event.

    Args:
        spec: what to run; saved into the folder.
        settings: passed to the job.
        folder: created when missing; must not hold a run.
        job: yields the events and raises on errors.
        on_event: called with each event after it is written to disk.

    Returns:
        The event that ended the run: `Finished`, `Failed` or `Cancelled`.

    Raises:
        RunError: the folder holds a run already (code `folder-taken`) or cannot be written.
    """
    folder.create()
    folder.write_spec(spec)
    folder.write_worker(mark_started(os.getpid()))
    return _work(job, spec, settings, folder, on_event)


def resume_worker(
    settings: Settings,
    folder: RunFolder,
    *,
    job: ResumedJob = dispatch_job,
    on_event: Callable[[Event], None] = ignore_event,
    reopened: bool = False,
) -> Event:
    """Continue in this process a run that failed, was stopped or was killed, with the spec in its folder.

    Args:
        settings: passed to the job.
        folder: of the run.
        job: as for `run_worker`; it also gets the run's `Replay`.
        on_event: called with each new event after it is written to disk.
        reopened: the process that started this one has called `RunFolder.reopen`.

    Returns:
        The event that ended the run; immediately if it is finished already.

    Raises:
        RunError: the folder is not a run or has another version, or a worker is or may be at work on it.
        SpecError: the spec was changed since the run started.
    """
    if finished := read_replay(folder).finished:
        return finished
    mark = mark_started(os.getpid())
    if reopened:
        folder.write_worker(mark)
    else:
        folder.reopen(mark)
    replay = read_replay(folder)
    folder.repair(replay.of(CandidateScored))

    def resumed(
        spec: AnySpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool]
    ) -> Iterator[Event]:
        return job(spec, settings, folder, should_stop, replay)

    return _work(resumed, folder.read_spec(), settings, folder, on_event)


def _work(job: Job, spec: AnySpec, settings: Settings, folder: RunFolder, on_event: Callable[[Event], None]) -> Event:
    with interruptible() as interrupted:
        outcome = _outcome(job, spec, settings, folder, on_event, lambda: interrupted() or _is_stopped(folder))
    with suppress(OSError):  # a folder that can no longer be written keeps them
        folder.remove_drafts()
    on_event(outcome)
    return outcome


def _is_stopped(folder: RunFolder) -> bool:
    """Whether a stop is requested; raises `RunError` when the folder was deleted, before work goes into a new one."""
    folder.refuse_deleted()
    return folder.stop_requested


def _outcome(
    job: Job,
    spec: AnySpec,
    settings: Settings,
    folder: RunFolder,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
) -> Event:
    """The job boundary: the only place where every exception is caught and becomes an event."""
    end: Event
    try:
        events = _after(folder, job(spec, settings, folder, should_stop))
        end = _drain(events, folder, on_event, should_stop)
    except (RunCancelled, KeyboardInterrupt):
        end = Cancelled()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary: every failure is recorded
        end = failure_of(error)
    ignore_interrupts()
    return _record_end(folder, end)


def _after(folder: RunFolder, events: Iterator[Event]) -> Iterator[Event]:
    """The events with times after those in the log; its last one may be later if the clock was set back meanwhile."""
    behind_s = max((event.at for event in folder.read_events()), default=0.0) - steady_time()
    for event in events:
        yield event.model_copy(update={"at": event.at + behind_s}) if behind_s > 0 else event


def _drain(
    events: Iterator[Event], folder: RunFolder, on_event: Callable[[Event], None], should_stop: Callable[[], bool]
) -> Event:
    for event in events:
        if is_terminal(event):
            return event
        folder.append_event(event)
        if isinstance(event, CandidateScored):
            folder.append_candidate(event)
        on_event(event)
        if should_stop():
            raise RunCancelled
    if should_stop():
        raise RunCancelled
    raise RuntimeError("the job ended without a result")


def _record_end(folder: RunFolder, end: Event) -> Event:
    """Write the terminal event and return the one that is the log's end now.

    If writing fails, for example on a full disk, a shorter `Failed` is tried; if that fails, only the caller gets it.
    """
    try:
        if isinstance(end, Finished):
            folder.write_result(end.result)
        return end if folder.append_terminal(end) else folder.read_events()[-1]
    except RunError as error:
        failed = Failed(message=error.message, hint=error.hint)
        with suppress(RunError):
            folder.append_terminal(failed)
        return failed


def spawn_worker(settings: Settings, command: Sequence[str], log: Path, lock_fd: int) -> int:
    """Start `python -m core ...` as a detached process that inherits the machine's lock; its process number.

    Args:
        settings: the process gets the same home and runs folders.
        command: its command line; `--lock-fd` is appended.
        log: file that its output is appended to.
        lock_fd: open file of the lock.

    Raises:
        RunError: the process cannot be started (code `worker-not-started`).
    """
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "SAFEMERGE_HOME": str(settings.home.resolve()),
        "SAFEMERGE_RUNS": str(settings.runs.resolve()),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    return start_detached([*command, "--lock-fd", str(lock_fd)], environment, log, lock_fd)


def start_run(
    spec: AnySpec, settings: Settings, *, command: Sequence[str] = WORKER_COMMAND, spawn: Spawn = spawn_worker
) -> str:
    """Start a new run in a worker process that outlives this one.

    Args:
        spec: what to run.
        settings: the worker gets the same home and runs folders.
        command: the worker's command line, before `SPEC --out DIR`.
        spawn: starts the process.

    Returns:
        The run's id: the name of its folder in `settings.runs`.

    Raises:
        RunError: another job is at work on this machine (code `machine-busy`), or the folder or process cannot be
            created.
    """
    folder = RunFolder(settings.runs.resolve() / new_run_id())
    with acquire_lock(settings.runs, folder.path) as lock:
        try:
            folder.create()
            folder.write_spec(spec)
            arguments = [*command, str(folder.spec_path), "--out", str(folder.path)]
            folder.write_worker(mark_started(spawn(settings, arguments, folder.log_path, lock.fd)))
        except RunError:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
    return folder.run_id


def resume_run(
    folder: RunFolder, settings: Settings, *, command: Sequence[str] = RESUME_COMMAND, spawn: Spawn = spawn_worker
) -> None:
    """Continue a run in a worker process that outlives this one; the run counts as running from now on.

    Args:
        folder: of a run that failed or was stopped.
        settings: as for `start_run`.
        command: the worker's command line, before `DIR`.
        spawn: starts the process.

    Raises:
        RunError: the run cannot be resumed, another job is at work on this machine, or the process cannot be created.
        SpecError: the spec was changed since the run started.
    """
    read_replay(folder)
    with acquire_lock(settings.runs, folder.path) as lock:
        folder.reopen(mark_started(os.getpid()))
        try:
            arguments = [*command, str(folder.path)]
            folder.write_worker(mark_started(spawn(settings, arguments, folder.log_path, lock.fd)))
        except RunError as error:
            folder.append_terminal(Failed(message=error.message, hint=error.hint))
            raise
