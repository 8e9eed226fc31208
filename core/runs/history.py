"""The runs of this machine, seen from outside: look at them, stop them, list them, delete them.

Any number of viewers do so; they share nothing but folders, so a page closed and reopened sees the same run. A worker
that died silently is marked Failed by whoever looks.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.events import Cancelled, Failed, is_terminal
from core.contracts.optimizers import method_of
from core.errors import RunError, SafeMergeError
from core.runs.folder import EventTail, RunFolder
from core.runs.view import RunView, Status, fold
from core.settings import Settings

RunKind = Literal["merge", "comparison"]
POLL_S = 0.1


@dataclass(frozen=True)
class RunSummary:
    """One line of the history.

    Attributes:
        elapsed_s: time the run has worked, without its pauses.
        method: how it merges; empty for a comparison.
        pool: the models that are merged, or compared.
        best_objective: the lowest `CE_safety + alpha * CE_expert` so far (nats/token).
        kind: whether models are merged or compared.
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
    shown = RunSummary(
        run_id=folder.run_id,
        path=folder.path,
        status=view.status,
        started_at=view.started_at,
        updated_at=view.updated_at,
        elapsed_s=view.elapsed_s(),
        message=view.message,
    )
    if isinstance(spec, ComparisonSpec):
        return replace(shown, kind="comparison", pool=tuple(compared.model for compared in spec.models))
    best = view.best(spec.search.optimizer)
    return replace(
        shown,
        method=method_of(spec.search.optimizer, spec.search.method),
        pool=(spec.pool.base, *(expert.model for expert in spec.pool.experts)),
        best_objective=best.objective if best else None,
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
