"""The list of runs: one line per run, cached by size and time of its files.

Reading a whole log takes tens of milliseconds. A line is therefore kept in memory, and for runs that are over also in
the run's folder (`.summary.json`), where a new process finds it. The file may be deleted at any time.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from core.contracts.comparison_spec import AnySpec, ComparisonSpec, any_spec_from_dict
from core.contracts.optimizers import method_of
from core.contracts.results import ModelResult
from core.durable import write_atomic
from core.errors import RunError, SafeMergeError, SpecError
from core.runs.folder import RunFolder
from core.runs.history import end_if_worker_died, read_view
from core.runs.view import RunView, Status
from core.settings import Settings

RunKind = Literal["merge", "comparison"]
VERSION = 1
"""Of the cache files; files of other versions are ignored."""


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs.

    Attributes:
        elapsed_s: seconds of work, without pauses.
        method: merge method; empty for a comparison.
        pool: the models that are merged or compared.
        best_objective: the lowest `CE_safety + alpha * CE_expert` so far (nats/token).
        kind: whether models are merged or compared.
        merged: result of the merged model, once the run is finished.
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
    kind: RunKind = "merge"
    merged: ModelResult | None = None

    @property
    def over(self) -> bool:
        """True once the run has finished, failed or was cancelled."""
        return self.status in ("finished", "failed", "cancelled")


_SUMMARY = TypeAdapter(RunSummary)


class _FileState(NamedTuple):
    """Size and modification time of a run's log and spec; a summary is valid while they stay the same."""

    log_size: int
    log_mtime_ns: int
    spec_size: int
    spec_mtime_ns: int


class _Cached(NamedTuple):
    files: _FileState
    summary: RunSummary


class RunList:
    """Lists the runs of a folder and remembers their lines; safe to use from several threads.

    Args:
        runs: folder of all runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._cached: dict[str, _Cached] = {}
        self._lock = threading.Lock()

    def read(self) -> list[RunSummary]:
        """All runs, newest first. A run that cannot be read is listed as failed, with the reason."""
        with self._lock:
            if not self._runs.is_dir():
                return []
            folders = [RunFolder(path) for path in sorted(self._runs.iterdir(), reverse=True)]
            known, self._cached = self._cached, {}
            return [self._summary(folder, known.get(folder.run_id)) for folder in folders if _is_own_run(folder)]

    def _summary(self, folder: RunFolder, cached: _Cached | None) -> RunSummary:
        try:
            cached = _unchanged(folder, cached or _read_cache(folder)) or _read_run(folder)
        except SafeMergeError as error:
            return RunSummary(folder.run_id, folder.path, "failed", message=error.message)
        self._cached[folder.run_id] = cached
        return cached.summary


def _is_own_run(folder: RunFolder) -> bool:
    """Whether a run is in the folder of runs itself; a link to another place is not followed."""
    return folder.path.is_dir() and not folder.path.is_symlink() and folder.is_run


def list_runs(settings: Settings) -> list[RunSummary]:
    """All runs of `settings.runs`, newest first (`RunList.read`)."""
    return RunList(settings.runs).read()


def _unchanged(folder: RunFolder, cached: _Cached | None) -> _Cached | None:
    """`cached` when it still describes the run, else None."""
    if cached is None or cached.files != _file_state(folder):
        return None
    if not cached.summary.over:
        end_if_worker_died(folder)
        return cached if cached.files == _file_state(folder) else None
    return cached


def _read_run(folder: RunFolder) -> _Cached:
    files = _file_state(folder)  # before the log is read: what is appended meanwhile makes the line invalid
    cached = _Cached(files, _summarize(folder, read_view(folder)))
    if cached.summary.over and files == _file_state(folder):
        _write_cache(folder, cached)
    return cached


def _summarize(folder: RunFolder, view: RunView) -> RunSummary:
    spec = _spec_of(folder, view)
    summary = RunSummary(
        run_id=folder.run_id,
        path=folder.path,
        status=view.status,
        started_at=view.started_at,
        updated_at=view.updated_at,
        elapsed_s=view.elapsed_s(),
        message=view.message,
        merged=_merged(view),
    )
    if isinstance(spec, ComparisonSpec):
        return replace(summary, kind="comparison", pool=tuple(compared.model for compared in spec.models))
    best = view.best(spec.search.optimizer)
    return replace(
        summary,
        method=method_of(spec.search.optimizer, spec.search.method),
        pool=(spec.pool.base, *(expert.model for expert in spec.pool.experts)),
        best_objective=best.objective if best else None,
    )


def _spec_of(folder: RunFolder, view: RunView) -> AnySpec:
    """The spec of a run: of `spec.yaml`, or of the log if that file is missing or damaged; raises `SpecError`."""
    try:
        return folder.read_spec()
    except SpecError:
        if not view.spec:
            raise
        return any_spec_from_dict(view.spec, stored=True)


def _merged(view: RunView) -> ModelResult | None:
    models = view.result.models if view.result else ()
    return next((model for model in models if model.role == "merged"), None)


def _file_state(folder: RunFolder) -> _FileState:
    return _FileState(*_size_and_time(folder.events_path), *_size_and_time(folder.spec_path))


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _read_cache(folder: RunFolder) -> _Cached | None:
    try:
        data = json.loads(folder.summary_path.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            return None
        place = {"run_id": folder.run_id, "path": str(folder.path)}
        return _Cached(_FileState(*data["files"]), _SUMMARY.validate_python({**data["summary"], **place}))
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def _write_cache(folder: RunFolder, cached: _Cached) -> None:
    summary = _SUMMARY.dump_python(cached.summary, mode="json", exclude={"run_id", "path"})
    data = {"version": VERSION, "files": list(cached.files), "summary": summary}
    with suppress(RunError):  # a folder that cannot be written is read again next time
        write_atomic(folder.summary_path, json.dumps(data) + "\n")
