"""The worker: the process in which a job runs, and what others may do to it from outside.

Inside, `run_worker` and `resume_worker` drain a job into the run's folder and are the boundary where every exception
becomes the run's last event. Outside, any number of viewers start, stop, resume, look at and delete runs; they share
nothing but folders, so a page closed and reopened sees the same run. A worker that died silently is marked Failed by
whoever looks.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import RunCancelled, RunError, SafeMergeError
from core.events import Cancelled, CandidateScored, Event, Failed, Finished, is_terminal
from core.runs.folder import DISK_FULL, EventTail, RunFolder
from core.runs.past import Past, read_past
from core.runs.process import ProcessMark, acquire_lock, mark_process, start_detached
from core.runs.signals import ignore_interrupts, interruptible
from core.runs.view import RunView, Status, fold
from core.settings import REPOSITORY, Settings
from core.specs import RunSpec

Job = Callable[[RunSpec, Settings, RunFolder, Callable[[], bool]], Iterator[Event]]
ResumedJob = Callable[[RunSpec, Settings, RunFolder, Callable[[], bool], Past], Iterator[Event]]

WORKER_COMMAND = (sys.executable, "-m", "core", "run")
RESUME_COMMAND = (sys.executable, "-m", "core", "resume")
POLL_S = 0.1


@dataclass(frozen=True)
class RunSummary:
    """One line of the history; `best_objective` is the lowest `CE_safety + alpha * CE_expert` so far (nats/token).

    `elapsed_s` is the time the run has worked, without its pauses.
    """

    run_id: str
    path: Path
    status: Status
    started_at: float | None = None
    updated_at: float | None = None
    elapsed_s: float | None = None
    method: str = ""
    pool: tuple[str, ...] = ()
    best_objective: float | None = None
    message: str = ""


def new_run_id() -> str:
    """A name for a run that sorts by time (UTC) and is not used twice."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def merge_job(spec: RunSpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool]) -> Iterator[Event]:
    """The real job; imported when it begins, so that looking at runs does not load the engine."""
    from core.runs.job import run_job

    yield from run_job(spec, settings, folder, should_stop)


def merge_on(
    spec: RunSpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool], past: Past
) -> Iterator[Event]:
    """The real job of a run that goes on."""
    from core.runs.job import run_job

    yield from run_job(spec, settings, folder, should_stop, past)


def unheard(_event: Event) -> None:
    """The listener of a run that nobody listens to."""


def run_worker(
    spec: RunSpec,
    settings: Settings,
    folder: RunFolder,
    *,
    job: Job = merge_job,
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
    job: ResumedJob = merge_on,
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
    if finished := read_past(folder).finished:
        return finished
    mark = _mark(os.getpid())
    if taken_up:
        folder.write_worker(mark)
    else:
        folder.take_up(mark)
    past = read_past(folder)
    folder.tidy_up(past.of(CandidateScored))

    def resumed(spec: RunSpec, settings: Settings, folder: RunFolder, asked: Callable[[], bool]) -> Iterator[Event]:
        return job(spec, settings, folder, asked, past)

    return _work(resumed, folder.read_spec(), settings, folder, tell)


def _work(job: Job, spec: RunSpec, settings: Settings, folder: RunFolder, tell: Callable[[Event], None]) -> Event:
    with interruptible() as interrupted:
        outcome = _outcome(job, spec, settings, folder, tell, lambda: interrupted() or folder.stop_requested)
    tell(outcome)
    return outcome


def _outcome(
    job: Job,
    spec: RunSpec,
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


def start_run(spec: RunSpec, settings: Settings, *, command: Sequence[str] = WORKER_COMMAND) -> str:
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
    read_past(folder)
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


def stop_run(folder: RunFolder, grace_s: float = 20.0) -> RunView:
    """End a run: ask, then insist (SIGTERM), then kill; each after `grace_s` seconds without an end.

    Blocks until the run is over; what it has done stays in the folder.

    Raises:
        RunError: the folder has no worker, or the run did not end.
    """
    view = read_view(folder)
    if view.over:
        return view
    worker = folder.read_worker()
    if worker is None:
        raise RunError(f"Nothing works on the run {folder.run_id}.", "Delete it, or start it again.")
    folder.request_stop()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None and worker.alive:
            os.kill(worker.pid, number)
        if _ends_within(folder, grace_s):
            return read_view(folder)
    raise RunError(f"The run {folder.run_id} does not stop.", f"End process {worker.pid} by hand.")


def _ends_within(folder: RunFolder, timeout_s: float) -> bool:
    tail, deadline = EventTail(folder.events_path), time.monotonic() + timeout_s
    while True:
        settle_run(folder)
        if any(is_terminal(event) for event in tail.read_new()):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)


def settle_run(folder: RunFolder) -> None:
    """End the log of a run whose worker is gone without a word; does nothing while the worker lives.

    Whoever follows a log with `EventTail` calls this now and then, else a killed worker would look busy for ever.
    """
    if _worker_is_gone(folder):
        end = Cancelled() if folder.stop_requested else _silent_death(folder)
        folder.append_terminal(end, only_if=lambda: _worker_is_gone(folder))  # it may be resumed at this moment


def _worker_is_gone(folder: RunFolder) -> bool:
    worker = folder.read_worker()
    return worker is not None and not worker.alive


def _silent_death(folder: RunFolder) -> Failed:
    hint = f"Too little memory is the usual cause; {folder.log_path} may end with the reason."
    return Failed(message="The worker stopped without saying why.", hint=hint)


def read_view(folder: RunFolder) -> RunView:
    """The run as of now; a dead worker's run is marked Failed (Cancelled when its stop had been asked for) once.

    Raises:
        RunError: the log cannot be read.
    """
    view = fold(folder.read_events())
    if view.over:
        return view
    settle_run(folder)
    return fold(folder.read_events())


def list_runs(settings: Settings) -> list[RunSummary]:
    """All runs in the runs folder, newest first. A folder that cannot be read is listed as failed, with the reason."""
    if not settings.runs.is_dir():
        return []
    folders = [RunFolder(path) for path in sorted(settings.runs.iterdir(), reverse=True) if path.is_dir()]
    return [_summary(folder) for folder in folders if folder.spec_path.exists() or folder.events_path.exists()]


def _summary(folder: RunFolder) -> RunSummary:
    try:
        view = read_view(folder)
        spec = folder.read_spec()
    except SafeMergeError as error:
        return RunSummary(folder.run_id, folder.path, "failed", message=error.message)
    best = view.best(spec.search.optimizer)
    return RunSummary(
        run_id=folder.run_id,
        path=folder.path,
        status=view.status,
        started_at=view.started_at,
        updated_at=view.updated_at,
        elapsed_s=view.elapsed_s(),
        method="linear" if spec.search.optimizer == "cocktail" else spec.search.method,
        pool=(spec.pool.base, *(expert.model for expert in spec.pool.experts)),
        best_objective=best.objective if best else None,
        message=view.message,
    )


def delete_run(folder: RunFolder, settings: Settings) -> None:
    """Delete a run's folder.

    Raises:
        RunError: the folder is not one of `settings.runs`, or its run is not over.
    """
    inside = folder.path.resolve().parent == settings.runs.resolve() and not folder.path.is_symlink()
    if not inside or not (folder.spec_path.exists() or folder.events_path.exists()):
        raise RunError(f"{folder.path} is not a run in {settings.runs}.", "Only runs made here are deleted.")
    worker = folder.read_worker()
    if worker is not None and worker.alive and not read_view(folder).over:
        raise RunError(f"The run {folder.run_id} is not over.", "Stop it first.")
    try:
        shutil.rmtree(folder.path)
    except OSError as error:
        raise RunError(f"{folder.path} cannot be deleted: {error.strerror}.", "Check who owns it.") from error
