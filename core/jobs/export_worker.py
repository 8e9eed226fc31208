"""The worker process that saves a candidate: how it is started, and how it records its progress and end.

Merging a candidate again loads the whole pool and changes the memory allocator of its process, so the page never does
it in its own process. `start_export` starts `python -m core export`, which calls `run_export`. Pages follow the record
(`core.runs.exports`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from core.errors import RunError, SafeMergeError
from core.jobs.signals import ignore_interrupts, interruptible
from core.jobs.worker import spawn_worker
from core.runs.candidates import ExportRequest
from core.runs.process import MachineLock, acquire_lock, mark_started
from core.settings import Settings

EXPORT_COMMAND = (sys.executable, "-m", "core", "export")

Save = Callable[[ExportRequest, Settings, Callable[[str], None]], str]
"""Merges and saves a candidate while the machine's lock is held; returns the sha256 of its weights."""


def save(request: ExportRequest, settings: Settings, on_step: Callable[[str], None]) -> str:
    """The real `Save`; imported when it begins, so that starting an export does not load the engine."""
    from core.jobs.reexport import merge_and_save

    return merge_and_save(request, settings, on_step)


def start_export(request: ExportRequest, settings: Settings, *, command: Sequence[str] = EXPORT_COMMAND) -> None:
    """Save a candidate in a worker process that outlives this one; `request.record` holds its progress.

    Args:
        request: a candidate of the run's own search, to be saved inside the run's folder.
        settings: the worker gets the same home and runs folders.
        command: the worker's command line, before `DIR --candidate N --search NAME`.

    Raises:
        RunError: another job is at work on this machine (code `machine-busy`), or the process cannot be started.
    """
    record = request.record
    if record is None:
        raise RunError(f"{request.target} is outside the run's folder.", "Use `python -m core export`.", code="outside")
    candidate = request.candidate
    arguments = [*command, str(request.run.path), "--candidate", str(candidate.candidate), "--search", candidate.search]
    with acquire_lock(settings.runs, request.target) as lock:
        record.begin(candidate.search, candidate.candidate, mark_started(os.getpid()))
        try:
            record.write_worker(mark_started(spawn_worker(settings, arguments, record.log_path, lock.fd)))
        except RunError as error:
            record.write_failed(error)
            raise


def run_export(
    request: ExportRequest,
    settings: Settings,
    on_step: Callable[[str], None],
    lock: MachineLock | None = None,
    *,
    save: Save = save,
) -> str:
    """Save a candidate in this process and record the progress where the page looks for it.

    Args:
        request: the candidate (`core.runs.candidates.find_candidate`).
        settings: of this machine.
        on_step: called with a short description of each step.
        lock: the machine's lock, if the process that started this one holds it; None = take it here.
        save: does the work.

    Returns:
        sha256 of the saved weights.

    Raises:
        RunError: another job is at work, a model has changed since the run, or the disk is full.
        ModelError: a model of the pool is unavailable, or memory is too small for the pool.
        MergeError: the recipe cannot be applied.
        KeyboardInterrupt: the export was cancelled.
    """
    with lock or acquire_lock(settings.runs, request.target), interruptible() as interrupted:
        record, candidate = request.record, request.candidate
        if record is None:
            return save(request, settings, on_step)
        if lock is None:
            record.begin(candidate.search, candidate.candidate, mark_started(os.getpid()))

        def report(step: str) -> None:
            if interrupted():
                raise KeyboardInterrupt
            record.write_step(step)
            on_step(step)

        try:
            sha256 = save(request, settings, report)
        except KeyboardInterrupt:
            ignore_interrupts()
            record.write_cancelled()
            raise
        except SafeMergeError as error:
            record.write_failed(error)
            raise
        except Exception as error:
            record.write_failed(_defect(error))
            raise
        record.write_saved(sha256)
        return sha256


def _defect(error: Exception) -> SafeMergeError:
    return SafeMergeError(
        f"Something went wrong while the candidate was saved: {type(error).__name__}: {error}",
        "This is a defect of SafeMerge, not a mistake of yours: report it with the log beside the candidate.",
    )
