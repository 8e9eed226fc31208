"""Following runs on behalf of all pages: each log is read once, piece by piece, however many pages look at it."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from core.contracts.events import Event
from core.contracts.results import ModelResult
from core.errors import RunError
from core.runs.folder import EventTail, RunFolder
from core.runs.history import read_view, settle_run
from core.runs.process import memory_of
from core.runs.view import RunView, fold

CAPACITY = 8


class Watched(NamedTuple):
    """A run as of now; `revision` grows with every event, so equal revisions need no new drawing."""

    folder: RunFolder
    view: RunView
    revision: int


class BusyNeeds(NamedTuple):
    """Memory of the run at work, in bytes: planned on the host and on a GPU, and taken on the host by now."""

    run_id: str
    host: int
    device: int
    taken: int


@dataclass
class _Followed:
    tail: EventTail
    events: list[Event] = field(default_factory=list)
    view: RunView = field(default_factory=RunView)


class RunWatch:
    """The logs that pages follow; safe to use from several threads.

    Args:
        runs: folder of all runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self._lock = threading.Lock()

    def folder(self, run_id: str) -> RunFolder:
        """The folder of a run.

        Raises:
            RunError: there is no such run; also for ids that are no plain folder name.
        """
        folder = RunFolder(self._runs / run_id)
        plain = run_id not in ("", ".", "..") and Path(run_id).name == run_id
        if not plain or not (folder.spec_path.exists() or folder.events_path.exists()):
            raise RunError(f"There is no run '{run_id}'.", "Choose one from the Runs tab.")
        return folder

    def look(self, run_id: str) -> Watched:
        """Read what is new and give the run as of now; a run whose worker has died is ended.

        Raises:
            RunError: there is no such run, or its log cannot be read.
        """
        folder = self.folder(run_id)
        with self._lock:
            followed = self._follow(folder)
            _read_on(followed)  # also of a run that was over: it may have been resumed
            if not followed.view.over:
                settle_run(folder)
                _read_on(followed)
            return Watched(folder, followed.view, len(followed.events))

    def busy_run(self) -> str | None:
        """Id of the run that is at work on this machine, or None."""
        folders = (RunFolder(path) for path in sorted(self._runs.glob("*/"), reverse=True))
        return next((folder.run_id for folder in folders if _works(folder)), None)

    def busy_needs(self) -> BusyNeeds | None:
        """What the run at work on this machine was planned to take, and takes now; None when none is at work."""
        run_id = self.busy_run()
        if run_id is None:
            return None
        view, worker = self.look(run_id).view, self.folder(run_id).read_worker()
        return BusyNeeds(run_id, view.host_bytes, view.device_bytes, memory_of(worker.pid) if worker else 0)

    def _follow(self, folder: RunFolder) -> _Followed:
        key = folder.run_id
        if key not in self._followed:
            self._followed[key] = _Followed(EventTail(folder.events_path))
        self._followed.move_to_end(key)
        while len(self._followed) > CAPACITY:
            self._followed.popitem(last=False)
        return self._followed[key]


def merged_figures(folder: RunFolder) -> ModelResult | None:
    """The merged model's figures from `result.json`; None when the run has none."""
    try:
        data = json.loads(folder.result_path.read_text(encoding="utf-8"))
        models = [ModelResult.model_validate(model) for model in data["models"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return next((model for model in models if model.role == "merged"), None)


def _read_on(followed: _Followed) -> None:
    new = followed.tail.read_new()
    if new:
        followed.events += new
        followed.view = fold(followed.events)


def _works(folder: RunFolder) -> bool:
    try:
        worker = folder.read_worker()
        return worker is not None and worker.alive and not read_view(folder).over
    except RunError:
        return False
