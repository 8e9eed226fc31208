"""The worker: the process in which a job runs, and how it is started from outside.

Inside, `run_worker` and `resume_worker` drain a job into the run's folder and are the boundary where every exception
becomes the run's last event. Outside, `start_run` and `resume_run` start such a process, which outlives whoever did so.
What anybody may do to a run that is there is in `core.runs.history`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.events import Cancelled, CandidateScored, Event, Failed, Finished, is_terminal
from core.errors import RunCancelled, RunError, SafeMergeError
from core.jobs.signals import ignore_interrupts, interruptible
from core.runs.durable import DISK_FULL
from core.runs.folder import RunFolder
from core.runs.process import ProcessMark, acquire_lock, mark_process, start_detached
from core.runs.replay import Replay, read_replay
from core.settings import REPOSITORY, Settings

Job = Callable[[Any, Settings, RunFolder, Callable[[], bool]], Iterator[Event]]
"""What works on one kind of spec (`AnySpec`)."""
ResumedJob = Callable[[Any, Settings, RunFolder, Callable[[], bool], Replay], Iterator[Event]]

WORKER_COMMAND = (sys.executable, "-m", "core", "run")
RESUME_COMMAND = (sys.executable, "-m", "core", "resume")


def new_run_id() -> str:
    """A name for a run that sorts by time (UTC) and is not used twice."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def real_job(
    spec: AnySpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool], *replay: Replay
) -> Iterator[Event]:
    """The job that a spec asks for; imported when it begins, so that looking at runs does not load the engine."""
    if isinstance(spec, ComparisonSpec):
        from core.jobs.comparison_job import run_comparison

        yield from run_comparison(spec, settings, folder, should_stop, *replay)
    else:
        from core.jobs.merge_job import run_job

        yield from run_job(spec, settings, folder, should_stop, *replay)


def unheard(_event: Event) -> None:
    """The listener of a run that nobody listens to."""


def run_worker(
    spec: AnySpec,
    settings: Settings,
    folder: RunFolder,
    *,
    job: Job = real_job,
    tell: Callable[[Event], None] = unheard,
) -> Event:
    """Run a job in this process and record it; the log ends in exactly one terminal event, whatever happens.

    Args:
        spec: what to run; saved into the folder.
        settings: handed to the job.
        folder: made when missing; must not hold a run.
        job: yields the events and raises on errors.
        tell: is given each event once it is on disk.

    Returns:
        The event that ended the run: `Finished`, `Failed` or `Cancelled`.

    Raises:
        RunError: the folder holds a run already or cannot be written at all.
    """
    folder.create()
    folder.write_spec(spec)
    folder.write_worker(_mark(os.getpid()))
    return _work(job, spec, settings, folder, tell)


def resume_worker(
    settings: Settings,
    folder: RunFolder,
    *,
    job: ResumedJob = real_job,
    tell: Callable[[Event], None] = unheard,
    taken_up: bool = False,
) -> Event:
    """Go on in this process with a run that failed, was stopped or was killed; its spec is the folder's.

    Args:
        settings: handed to the job.
        folder: of the run.
        job: as for `run_worker`; it is also given the run's past.
        tell: is given each new event once it is on disk.
        taken_up: whoever started this process has called `RunFolder.take_up`.

    Returns:
        The event that ended the run; at once where it is finished already.

    Raises:
        RunError: the folder is no run or another version's, or a worker is at work on it.
        SpecError: the spec was changed since the run began.
    """
    if finished := read_replay(folder).finished:
        return finished
    mark = _mark(os.getpid())
    if taken_up:
        folder.write_worker(mark)
    else:
        folder.take_up(mark)
    replay = read_replay(folder)
    folder.tidy_up(replay.of(CandidateScored))

    def resumed(spec: AnySpec, settings: Settings, folder: RunFolder, asked: Callable[[], bool]) -> Iterator[Event]:
        return job(spec, settings, folder, asked, replay)

    return _work(resumed, folder.read_spec(), settings, folder, tell)


def _work(job: Job, spec: AnySpec, settings: Settings, folder: RunFolder, tell: Callable[[Event], None]) -> Event:
    with interruptible() as interrupted:
        outcome = _outcome(job, spec, settings, folder, tell, lambda: interrupted() or folder.stop_requested)
    tell(outcome)
    return outcome


def _outcome(
    job: Job,
    spec: AnySpec,
    settings: Settings,
    folder: RunFolder,
    tell: Callable[[Event], None],
    should_stop: Callable[[], bool],
) -> Event:
    """The job boundary: the one place where every exception is caught, and turned into an event."""
    end: Event
    try:
        end = _drain(job(spec, settings, folder, should_stop), folder, tell, should_stop)
    except (RunCancelled, KeyboardInterrupt):
        end = Cancelled()
    except SafeMergeError as error:
        end = Failed(message=error.message, hint=error.hint)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary: nothing may pass it unrecorded
        end = _failure(error)
    ignore_interrupts()
    return _record_end(folder, end)


def _failure(error: BaseException) -> Failed:
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        where = f" to write {error.filename}" if error.filename else ""
        return Failed(message=f"There is no space left{where}.", hint="Free disk space and start again.")
    return Failed(
        message=f"Something went wrong inside the run: {type(error).__name__}: {error}",
        hint="This is a defect, not a mistake of yours: report it with the traceback.",
        traceback=traceback.format_exc(),
    )


def _drain(
    events: Iterator[Event], folder: RunFolder, tell: Callable[[Event], None], should_stop: Callable[[], bool]
) -> Event:
    for event in events:
        if is_terminal(event):
            return event
        folder.append_event(event)
        if isinstance(event, CandidateScored):
            folder.append_candidate(event)
        tell(event)
        if should_stop():
            raise RunCancelled
    if should_stop():
        raise RunCancelled
    raise RuntimeError("the job ended without a result")


def _record_end(folder: RunFolder, end: Event) -> Event:
    """Write the last event; where the disk is full, a failure that may fit, and else only the caller hears of it."""
    try:
        if isinstance(end, Finished):
            folder.write_result(end.result)
        return end if folder.append_terminal(end) else folder.read_events()[-1]
    except RunError as error:
        failed = Failed(message=error.message, hint=error.hint)
        with suppress(RunError):
            folder.append_terminal(failed)
        return failed


def start_run(spec: AnySpec, settings: Settings, *, command: Sequence[str] = WORKER_COMMAND) -> str:
    """Start a worker process that outlives this one.

    Args:
        spec: what to run.
        settings: the worker gets the same home and runs folders.
        command: the worker's command line, before `SPEC --out DIR`.

    Returns:
        The run's id, the name of its folder in `settings.runs`.

    Raises:
        RunError: another run is at work on this machine, or the folder or process cannot be made.
    """
    folder = RunFolder(settings.runs.resolve() / new_run_id())
    with acquire_lock(settings.runs, folder.path) as lock:
        try:
            folder.create()
            folder.write_spec(spec)
            arguments = [*command, str(folder.spec_path), "--out", str(folder.path)]
            folder.write_worker(_mark(_spawn(folder, settings, arguments, lock.fd)))
        except RunError:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
    return folder.run_id


def resume_run(folder: RunFolder, settings: Settings, *, command: Sequence[str] = RESUME_COMMAND) -> None:
    """Go on with a run in a worker process that outlives this one; the run counts as running from now on.

    Args:
        folder: of a run that failed or was stopped.
        settings: as for `start_run`.
        command: the worker's command line, before `DIR`.

    Raises:
        RunError: the run cannot be resumed, another is at work on this machine, or the process cannot be made.
        SpecError: the spec was changed since the run began.
    """
    read_replay(folder)
    with acquire_lock(settings.runs, folder.path) as lock:
        folder.take_up(_mark(os.getpid()))
        try:
            folder.write_worker(_mark(_spawn(folder, settings, [*command, str(folder.path)], lock.fd)))
        except RunError as error:
            folder.append_terminal(Failed(message=error.message, hint=error.hint))
            raise


def _spawn(folder: RunFolder, settings: Settings, command: Sequence[str], lock_fd: int) -> int:
    arguments = [*command, "--lock-fd", str(lock_fd)]
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "SAFEMERGE_HOME": str(settings.home.resolve()),
        "SAFEMERGE_RUNS": str(settings.runs.resolve()),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    return start_detached(arguments, environment, folder.log_path, lock_fd)


def _mark(pid: int) -> ProcessMark:
    return mark_process(pid) or ProcessMark(pid, "ended")
