"""The record of saving a candidate, which a worker process does: its progress, its end, and how to cancel it.

Beside the candidate's folder `candidates/NAME/` stand `NAME.json` (the status, replaced as a whole at each step),
`NAME.worker.json` (the process) and `NAME.log` (its output). Any number of pages follow them, also after a reload.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.durable import write_atomic
from core.errors import RunError, SafeMergeError
from core.runs.folder import RunFolder, read_mark
from core.runs.process import ProcessMark

FOLDER = "candidates"
POLL_S = 0.1
_WORKER = ".worker.json"


class ExportStatus(BaseModel):
    """How far the export of one candidate is.

    Attributes:
        candidate: its number in `candidates.jsonl`, from 0.
        path: folder of the saved model.
        started_at: Unix time; `updated_at` is that of the last step.
        step: what the worker does now.
        sha256: of the saved weights, once `state` is `saved`.
        message: why it failed; `hint` says what to do.
    """

    model_config = ConfigDict(frozen=True)

    search: str
    candidate: int
    path: str
    started_at: float
    updated_at: float
    state: Literal["running", "saved", "failed", "cancelled"] = "running"
    step: str = ""
    sha256: str = ""
    message: str = ""
    hint: str = ""

    @property
    def over(self) -> bool:
        return self.state != "running"


class ExportRecord:
    """The files that record the export of one candidate.

    Args:
        target: folder that the candidate is saved to; it need not exist.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.status_path = target.with_name(f"{target.name}.json")
        self.worker_path = target.with_name(f"{target.name}{_WORKER}")
        self.log_path = target.with_name(f"{target.name}.log")

    def begin(self, search: str, candidate: int, worker: ProcessMark) -> None:
        """Record that `worker` begins the export.

        Raises:
            RunError: the disk is full or the folder cannot be written; as for all methods that write.
        """
        self.write_worker(worker)
        now = time.time()
        status = ExportStatus(
            search=search, candidate=candidate, path=str(self.target), started_at=now, updated_at=now, step="starting"
        )
        self._write(status)

    def write_worker(self, worker: ProcessMark) -> None:
        """Record which process does the export."""
        write_atomic(self.worker_path, json.dumps(vars(worker)) + "\n")

    def write_step(self, step: str) -> None:
        """Record what the worker does now."""
        self._update(step=step)

    def write_saved(self, sha256: str) -> None:
        """Record that the candidate is saved."""
        self._update(state="saved", step="", sha256=sha256)

    def write_failed(self, error: SafeMergeError) -> None:
        """Record why the candidate could not be saved."""
        self._update(state="failed", step="", message=error.message, hint=error.hint)

    def write_cancelled(self) -> None:
        """Record that the export was cancelled, unless it has ended."""
        self._update(state="cancelled", step="")

    def read(self) -> ExportStatus | None:
        """The status as of now; None without a record. An export whose worker died counts as failed."""
        status = self._read()
        if status is None or status.over:
            return status
        worker = self.read_worker()
        if worker is None or worker.state != "gone":
            return status
        status = self._read() or status  # the worker may have ended after the first read
        if status.over:
            return status
        hint = f"The usual cause is too little memory; the end of {self.log_path} may show the reason."
        message = "The worker that saved the candidate stopped without a message."
        return status.model_copy(update={"state": "failed", "message": message, "hint": hint})

    def read_worker(self) -> ProcessMark | None:
        """The process that does or did the export; None when there was none or the file is damaged."""
        try:
            return read_mark(self.worker_path)
        except RunError:
            return None

    def _read(self) -> ExportStatus | None:
        try:
            return ExportStatus.model_validate_json(self.status_path.read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def _update(self, **changes: Any) -> None:
        status = self._read()
        if status is not None and not status.over:
            self._write(status.model_copy(update={**changes, "updated_at": time.time()}))

    def _write(self, status: ExportStatus) -> None:
        write_atomic(self.status_path, status.model_dump_json(indent=2) + "\n")


def list_exports(run: RunFolder) -> list[ExportRecord]:
    """The records of all exports of a run's candidates."""
    files = sorted((run.path / FOLDER).glob("*.json"))
    return [ExportRecord(path.with_suffix("")) for path in files if not path.name.endswith(_WORKER)]


def latest_export(run: RunFolder) -> ExportStatus | None:
    """The status of the export that was started last; None when no candidate was ever exported."""
    found = filter(None, (record.read() for record in list_exports(run)))
    return max(found, key=lambda status: status.started_at, default=None)


def cancel_export(run: RunFolder, grace_s: float = 10.0) -> None:
    """Cancel the export that is at work in a run: SIGTERM, then SIGKILL after `grace_s` seconds.

    Raises:
        RunError: no export is at work (code `no-export`), or its worker is on another host (code `worker-elsewhere`).
    """
    for record in list_exports(run):
        status, worker = record.read(), record.read_worker()
        if status is None or status.over or worker is None:
            continue
        if worker.state == "unknown":
            raise RunError(
                f"The candidate is being saved by {worker.place}, which cannot be reached from here.",
                "Cancel it on that host.",
                code="worker-elsewhere",
            )
        _end(worker, grace_s)
        record.write_cancelled()
        return
    raise RunError("No candidate is being saved.", "Save one first.", code="no-export")


def _end(worker: ProcessMark, grace_s: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if worker.alive:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, number)
        deadline = time.monotonic() + grace_s
        while worker.alive and time.monotonic() < deadline:
            time.sleep(POLL_S)


def refuse_while_exporting(run: RunFolder) -> None:
    """Raise `RunError` (code `export-at-work`) while a candidate of the run is being saved."""
    for record in list_exports(run):
        status, worker = record.read(), record.read_worker()
        if status is not None and not status.over and worker is not None and worker.state != "gone":
            raise RunError(
                f"Candidate {status.candidate} of run {run.run_id} is being saved.",
                "Wait until it is saved, or cancel it first.",
                code="export-at-work",
            )
