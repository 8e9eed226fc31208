"""Follows runs for all pages: each log is read once, piece by piece, however many pages show the run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from core.errors import RunError
from core.runs.folder import RunFolder
from core.runs.history import RunFollower
from core.runs.process import memory_of
from core.runs.summaries import RunList, RunSummary
from core.runs.view import RunView

CAPACITY = 8
MAX_NAME_BYTES = 200


class Watched(NamedTuple):
    """A run as of now.

    Attributes:
        revision: grows with every event, so a page with the same revision is up to date.
        now: the present time by the clock of the log (`RunFollower.now`).
    """

    folder: RunFolder
    view: RunView
    revision: int
    now: float


class BusyNeeds(NamedTuple):
    """Memory of the run at work, in bytes: planned for main memory and for a GPU, and main memory in use now."""

    run_id: str
    host: int
    device: int
    taken: int


class RunWatch:
    """The logs that pages follow; safe to use from several threads.

    Args:
        runs: folder of all runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._followed: OrderedDict[str, RunFollower] = OrderedDict()
        self._lock = threading.Lock()
        self._list = RunList(runs)

    def folder(self, run_id: str) -> RunFolder:
        """The folder of a run.

        Raises:
            RunError: there is no such run (code `no-run`); also for links and ids that are no plain name.
        """
        folder = RunFolder(self._runs / run_id) if _is_plain_name(run_id) else None
        if folder is None or folder.path.is_symlink() or not folder.is_run:
            raise RunError(f"There is no run '{run_id}'.", "Choose one from the Runs tab.", code="no-run")
        return folder

    def look(self, run_id: str) -> Watched:
        """Read what is new and return the run as of now; a run whose worker has died is ended.

        Raises:
            RunError: there is no such run, or its log cannot be read.
        """
        folder = self.folder(run_id)
        with self._lock:
            follower = self._follow(folder)
            view = follower.update()
            return Watched(folder, view, follower.revision, follower.now)

    def list_runs(self) -> list[RunSummary]:
        """All runs, newest first."""
        return self._list.read()

    def busy_run(self) -> str | None:
        """Id of the run that is at work on this machine, or None."""
        folders = (RunFolder(path) for path in sorted(self._runs.glob("*/"), reverse=True) if not path.is_symlink())
        return next((folder.run_id for folder in folders if self._is_at_work(folder)), None)

    def busy_needs(self) -> BusyNeeds | None:
        """The planned and current memory of the run at work on this machine; None when there is none."""
        run_id = self.busy_run()
        if run_id is None:
            return None
        view, worker = self.look(run_id).view, self.folder(run_id).read_worker()
        return BusyNeeds(run_id, view.host_bytes, view.device_bytes, memory_of(worker.pid) if worker else 0)

    def _is_at_work(self, folder: RunFolder) -> bool:
        try:
            worker = folder.read_worker()
            return worker is not None and worker.alive and not self.look(folder.run_id).view.over
        except RunError:
            return False

    def _follow(self, folder: RunFolder) -> RunFollower:
        key = folder.run_id
        if key not in self._followed:
            self._followed[key] = RunFollower(folder)
        self._followed.move_to_end(key)
        while len(self._followed) > CAPACITY:
            self._followed.popitem(last=False)
        return self._followed[key]


def _is_plain_name(run_id: object) -> bool:
    """Whether a run's id is the name of a folder, without a path, null characters or more bytes than names have."""
    if not isinstance(run_id, str) or run_id in ("", ".", "..") or "\0" in run_id:
        return False
    return Path(run_id).name == run_id and len(run_id.encode("utf-8", errors="replace")) <= MAX_NAME_BYTES
