"""Operations on runs from outside their workers: read, follow, stop and delete them.

Any number of viewers may do so at once. They share only folders, so a page that is closed and reopened sees the same
run. The first viewer that finds a worker dead marks its run as failed. A worker on another host cannot be seen: its run
stays as its log says, and nothing destructive is done to it.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress

from core.contracts.events import Cancelled, Failed, is_terminal
from core.errors import RunError
from core.runs.event_tail import EventTail
from core.runs.exports import refuse_while_exporting
from core.runs.folder import RunFolder
from core.runs.process import ProcessMark, is_held_for
from core.runs.publications import refuse_while_publishing
from core.runs.view import RunView, fold
from core.settings import Settings

POLL_S = 0.1
GRACE_S = 1.5
"""How long a worker has to end after each request, so that a stop frees the device within five seconds."""
ELSEWHERE_S = 20.0
"""How long a worker on another host, which is only requested to stop, is waited for."""
RESUME = "Resume the run: it continues with what its log holds."
START_S = 10.0
"""How old a spec without a log and a worker must be before its run counts as never begun."""
QUIET_S = 60.0
"""How long a log without `worker.json` must have been quiet before its worker counts as gone."""


class RunFollower:
    """The view of a run, kept up to date by reading only what is new in its log.

    Attributes:
        view: the run as of the last call of `update`.
        revision: number of events read so far; it grows with every change of the view.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.view = RunView()
        self.revision = 0
        self._tail = EventTail(folder.events_path)
        self._last_written = 0.0

    @property
    def now(self) -> float:
        """The present time by the clock of the log, with which times since its events are right.

        The log's clock is its worker's; ours may differ from it or be set during the run.
        """
        return (self.view.updated_at or 0.0) + time.monotonic() - self._last_written

    def update(self) -> RunView:
        """Read new events, and end the log if the worker has died; the run as of now.

        Raises:
            RunError: the log cannot be read.
        """
        self._read_new()  # also for a run that was over: it may have been resumed
        if not self.view.over:
            try:
                end_if_worker_died(self.folder)
            except RunError as error:  # such as a folder that may be read only
                self._end_here(error)
            self._read_new()
        return self.view

    def _end_here(self, error: RunError) -> None:
        """End the view of a run whose worker is gone and whose log cannot be written; the log stays as it is."""
        with suppress(RunError):
            if _worker_is_gone(self.folder):
                died = _died(self.folder)
                hint = f"{died.hint} Its log cannot be ended: {error.message}"
                self.view = fold(
                    [died.model_copy(update={"hint": hint, "at": self.view.updated_at or died.at})], self.view
                )
                self.revision += 1

    def _read_new(self) -> None:
        events = self._tail.read_new(skip_damaged=True)
        self.view = fold(events, self.view)
        self.revision += len(events)
        if events:
            self._last_written = time.monotonic() - _age_s(self.folder)


def _age_s(folder: RunFolder) -> float:
    """Seconds since something was written to the log; 0 for a time in the future."""
    try:
        return max(0.0, time.time() - folder.events_path.stat().st_mtime)
    except OSError:
        return 0.0


def read_view(folder: RunFolder) -> RunView:
    """The run as of now. A run whose worker has died is marked as failed, or as cancelled if its stop was requested.

    Raises:
        RunError: the log cannot be read.
    """
    return RunFollower(folder).update()


def stop_run(folder: RunFolder, grace_s: float = GRACE_S, *, elsewhere_s: float = ELSEWHERE_S) -> RunView:
    """End a run: request a stop, then send SIGTERM, then SIGKILL, and wait `grace_s` seconds after each.

    A worker that was paused (SIGSTOP) goes on, so that it can end. One that is killed loses only its last step.

    Blocks until the run is over; its files stay in the folder. A worker on another host is only requested to stop.

    Raises:
        RunError: the run has no worker (code `no-worker`), or it did not end (codes `not-stopped`, `worker-elsewhere`).
    """
    view = read_view(folder)
    if view.over:
        return view
    worker = folder.read_worker()
    if worker is None:
        raise RunError(f"No worker is at work on run {folder.run_id}.", "Delete it, or resume it.", code="no-worker")
    folder.request_stop()
    if worker.state == "unknown":
        if _ends_within(folder, elsewhere_s):
            return read_view(folder)
        raise folder.worker_elsewhere(worker)
    return _end_worker(folder, worker, grace_s)


def _end_worker(folder: RunFolder, worker: ProcessMark, grace_s: float) -> RunView:
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None and worker.alive:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, number)
                os.kill(worker.pid, signal.SIGCONT)
        if _ends_within(folder, grace_s):
            return read_view(folder)
    raise RunError(f"The run {folder.run_id} does not stop.", f"End process {worker.pid} yourself.", code="not-stopped")


def _ends_within(folder: RunFolder, timeout_s: float) -> bool:
    tail, deadline = EventTail(folder.events_path), time.monotonic() + timeout_s
    while True:
        end_if_worker_died(folder)
        if any(is_terminal(event) for event in tail.read_new()):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)


def end_if_worker_died(folder: RunFolder) -> None:
    """End the log of a run whose worker died before it could; otherwise do nothing.

    Readers that follow a log with `EventTail` call this regularly: a killed worker would otherwise seem busy forever.
    """
    if _worker_is_gone(folder):
        end = Cancelled() if folder.stop_requested else _died(folder)
        with suppress(OSError):  # the time that nobody worked is no time of the run
            end = end.model_copy(update={"at": folder.events_path.stat().st_mtime})
        folder.append_terminal(end, only_if=lambda: _worker_is_gone(folder))  # it may be resumed at this moment


def _worker_is_gone(folder: RunFolder) -> bool:
    worker = folder.read_worker()
    return worker.state == "gone" if worker is not None else _lost_its_worker(folder)


def _lost_its_worker(folder: RunFolder) -> bool:
    """Whether a run without a `worker.json` is given up: its log, or its spec before there is a log, is old enough, and
    no job holds the machine for it.
    """
    begun = _has_begun(folder)
    try:
        age_s = time.time() - (folder.events_path if begun else folder.spec_path).stat().st_mtime
    except OSError:
        return False
    return age_s > (QUIET_S if begun else START_S) and not is_held_for(folder.path)


def _has_begun(folder: RunFolder) -> bool:
    """Whether the log has a line."""
    return folder.events_path.exists() and folder.events_path.stat().st_size > 0


def _died(folder: RunFolder) -> Failed:
    if not folder.worker_path.exists():
        if not _has_begun(folder):
            return Failed(message="The run has no worker: what launched it ended before it began.", hint=RESUME)
        return Failed(message="worker.json is missing, and no worker writes the log.", hint=RESUME)
    causes = "The usual causes are too little memory and a full disk"
    hint = f"{causes}; the end of {folder.log_path} may show the reason. {RESUME}"
    return Failed(message="The worker stopped without a message.", hint=hint)


def delete_run(folder: RunFolder, settings: Settings) -> None:
    """Delete a run's folder.

    Raises:
        RunError: the folder is not a run of `settings.runs` (code `not-a-run`), its run is not over or cannot be seen
            from here (codes `run-at-work`, `worker-elsewhere`), one of its candidates is being saved (code
            `export-at-work`), or one of its merges is being uploaded (code `publish-at-work`).
    """
    inside = folder.path.resolve().parent == settings.runs.resolve() and not folder.path.is_symlink()
    if not inside or not folder.is_run:
        raise RunError(
            f"{folder.path} is not a run in {settings.runs}.",
            "Only runs in that folder can be deleted.",
            code="not-a-run",
        )
    worker = folder.read_worker()
    if worker is not None and worker.state != "gone" and not read_view(folder).over:
        folder.refuse_at_work()
    refuse_while_exporting(folder)
    refuse_while_publishing(folder)
    try:
        shutil.rmtree(folder.path)
    except OSError as error:
        raise RunError(
            f"{folder.path} cannot be deleted: {error.strerror}.", "Check who owns it.", code="not-deleted"
        ) from error
