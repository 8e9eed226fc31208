"""The run folder: its layout, and writes that never leave a half-written file or line.

    spec.yaml, events.jsonl, candidates.jsonl, result.json, data/safety.jsonl, data/domain.jsonl, merged/
    replies/ (the measured replies, one file per model), candidates/ (saved candidates, see `core.runs.exports`)
    disputed.jsonl (where several guards judge: replies to test prompts on which they differ)
    worker.json (the process that works on the run), worker.log (its output), stop (present once a stop is requested)
    .summary.json (a cache for the list of runs; safe to delete)

Whole files are written to a temporary file and renamed into place. Logs grow line by line; a line that could not be
written completely is removed, and readers wait for the end of a line. The log has at most one terminal event, as its
last line. It is removed again only when the run is resumed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from core.contracts.comparison_spec import AnySpec, load_any_spec
from core.contracts.events import (
    Cancelled,
    CandidateScored,
    Event,
    Failed,
    Finished,
    Resumed,
    is_terminal,
)
from core.contracts.reply_verdicts import DisputedReply
from core.contracts.results import RunResult
from core.data.training_pairs import Dataset, Sample, write_samples
from core.durable import (
    append_line,
    last_line,
    locked_log,
    translate_os_errors,
    write_atomic,
    write_line,
    writer_of,
)
from core.errors import RunError
from core.evaluation.replies import ReplyRow, replies_name, rows_text
from core.runs.event_tail import EventTail, parse_line
from core.runs.process import ProcessMark, mark_process
from core.runs.removed_search import refuse_removed_search


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. The object holds only the path: all state is in the folder.

    Every writing method raises `RunError` when the disk is full or the folder cannot be written, and then leaves the
    old content in place.
    """

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def spec_path(self) -> Path:
        return self.path / "spec.yaml"

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def candidates_path(self) -> Path:
        return self.path / "candidates.jsonl"

    @property
    def result_path(self) -> Path:
        return self.path / "result.json"

    @property
    def merged_path(self) -> Path:
        """The folder of the merged model."""
        return self.path / "merged"

    @property
    def log_path(self) -> Path:
        """The worker's output, mostly from its libraries."""
        return self.path / "worker.log"

    @property
    def worker_path(self) -> Path:
        return self.path / "worker.json"

    @property
    def stop_path(self) -> Path:
        return self.path / "stop"

    @property
    def summary_path(self) -> Path:
        """The cached line of the list of runs."""
        return self.path / ".summary.json"

    @property
    def is_run(self) -> bool:
        """Whether the folder holds a run."""
        return self.spec_path.exists() or self.events_path.exists()

    def data_path(self, dataset: Dataset) -> Path:
        """The file of the safety or domain pairs."""
        return self.path / "data" / f"{dataset}.jsonl"

    def replies_path(self, name: str) -> Path:
        """The file of a measured model's replies; `core.evaluation.replies.read_rows` reads it."""
        return self.path / "replies" / replies_name(name)

    def create(self) -> None:
        """Create the folder; an existing one is used when it holds no run."""
        if self.events_path.exists():
            raise RunError(f"{self.path} already holds a run.", "Give another folder.", code="folder-taken")
        with translate_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def refuse_deleted(self) -> None:
        """Raise `RunError` (code `folder-deleted`) when the folder is gone; a write would begin it anew."""
        if not self.path.is_dir():
            raise RunError(
                f"The folder {self.path} was deleted or moved while its run was at work.",
                "What it held is gone: put the folder back and resume the run, or start a new one.",
                code="folder-deleted",
            )

    def _write(self, path: Path, text: str) -> None:
        self.refuse_deleted()
        write_atomic(path, text)

    def write_spec(self, spec: AnySpec) -> None:
        self._write(self.spec_path, spec.to_yaml())

    def read_spec(self) -> AnySpec:
        """The spec of this run, also of an earlier version's; raises `SpecError` when it is missing or invalid."""
        return load_any_spec(self.spec_path, stored=True)

    def write_result(self, result: RunResult) -> None:
        self._write(self.result_path, json.dumps(result.to_json_dict(), indent=2, ensure_ascii=False) + "\n")

    def write_data(self, dataset: Dataset, samples: Iterable[Sample]) -> None:
        """Write the safety or domain pairs; `core.data.training_pairs.read_samples` reads them back."""
        self.refuse_deleted()
        write_samples(self.data_path(dataset), samples)

    def write_disputed(self, replies: Iterable[DisputedReply]) -> None:
        """Write the replies to test prompts on which guards differ, as `disputed.jsonl`."""
        self._write(self.path / "disputed.jsonl", "".join(reply.model_dump_json() + "\n" for reply in replies))

    def write_replies(self, name: str, rows: Iterable[ReplyRow]) -> None:
        """Write a model's replies to the test prompts."""
        self._write(self.replies_path(name), rows_text(rows))

    def append_candidate(self, candidate: CandidateScored) -> None:
        append_line(self.candidates_path, _candidate_line(candidate))

    def repair(self, candidates: Iterable[CandidateScored]) -> None:
        """Repair what a killed worker left: remove drafts of files and models, write `candidates.jsonl` from the log.

        Args:
            candidates: all candidates of the log.
        """
        self.remove_drafts()
        for pattern in (".*.partial", "baselines/.*.partial"):
            for draft in self.path.glob(pattern):
                shutil.rmtree(draft, ignore_errors=True)
        if lines := [_candidate_line(candidate) + "\n" for candidate in candidates]:
            self._write(self.candidates_path, "".join(lines))

    def remove_drafts(self) -> None:
        """Remove drafts of files whose writers are dead, such as an app that was killed while it launched the run."""
        for pattern in (".*.tmp", "replies/.*.tmp", "data/.*.jsonl.*"):
            for temporary in self.path.glob(pattern):
                if not _is_being_written(temporary):
                    temporary.unlink(missing_ok=True)

    def append_event(self, event: Event) -> None:
        """Append an event to the log. If the clock was set back, the event gets the time of the event before it.

        Raises:
            RunError: the log has ended (code `log-ended`): somebody else ended the run; or the folder was deleted (code
                `folder-deleted`).
        """
        self.refuse_deleted()
        with locked_log(self.events_path) as fd:
            last = self._last_event(fd)
            if last is not None and is_terminal(last):
                raise RunError(
                    f"The log of run {self.run_id} has ended ({last.kind}), so '{event.kind}' is not added.",
                    "Resume the run to go on.",
                    code="log-ended",
                )
            self._write_event(fd, event, last)

    def append_terminal(self, event: Event, only_if: Callable[[], bool] = lambda: True) -> bool:
        """End the log with `event` unless it has ended; safe when several viewers do so at once.

        Args:
            event: the terminal event.
            only_if: checked while nobody else can write to the log; False leaves the log as it is.

        Returns:
            True when `event` was written.
        """
        self.refuse_deleted()
        with locked_log(self.events_path) as fd:
            last = self._last_event(fd)
            if (last is not None and is_terminal(last)) or not only_if():
                return False
            self._write_event(fd, event, last)
        return True

    def reopen(self, worker: ProcessMark) -> None:
        """Reopen a run that stopped before it finished, for `worker`.

        Under the log's lock, `Resumed` replaces the terminal event, the stop request is removed and `worker` is
        recorded.

        Raises:
            RunError: a worker is at work on the run (code `run-at-work`), may be at work on another host (code
                `worker-elsewhere`), the run is finished (code `run-finished`), or its search needs what was removed
                (code `search-removed`).
        """
        with locked_log(self.events_path) as fd:
            last = self._last_event(fd)
            if isinstance(last, Finished):
                raise RunError(
                    f"The run {self.run_id} is finished already.",
                    "Open its result, or start a new run.",
                    code="run-finished",
                )
            if last is None or not is_terminal(last):
                self.refuse_at_work()
            refuse_removed_search(self.spec_path, self.read_events())
            self.write_worker(worker)
            self.stop_path.unlink(missing_ok=True)
            self._replace_end_with_resumed(fd, last)

    def _replace_end_with_resumed(self, fd: int, last: Event | None) -> None:
        ended, ended_at = "The worker was gone.", None if last is None else last.at
        if isinstance(last, Failed | Cancelled):
            ended = last.message
            os.ftruncate(fd, last_line(fd)[0])
            last = self._last_event(fd)
        if last is not None and ended_at is not None:  # otherwise the log begins like that of a new run
            now = time.time()
            self._write_event(fd, Resumed(at=now, ended=ended, paused_s=max(0.0, now - ended_at)), last)

    def refuse_at_work(self) -> None:
        """Raise `RunError` when the worker of an unfinished run is alive, or is on a host that cannot be seen."""
        worker = self.read_worker()
        if worker is None or worker.state == "gone":
            return
        if worker.alive:
            raise RunError(
                f"The run {self.run_id} is at work (process {worker.pid}).",
                "Wait until it is over, or stop it first.",
                code="run-at-work",
            )
        raise self.worker_elsewhere(worker)

    def worker_elsewhere(self, worker: ProcessMark) -> RunError:
        """The error about a worker whose state cannot be seen from here."""
        return RunError(
            f"The run {self.run_id} belongs to {worker.place}, whose state cannot be seen from here.",
            f"Follow or stop it on that host. If that host is gone, delete {self.worker_path} and try again.",
            code="worker-elsewhere",
        )

    def _last_event(self, fd: int) -> Event | None:
        line = last_line(fd)[1]
        return parse_line(line, self.events_path) if line else None

    def _write_event(self, fd: int, event: Event, last: Event | None) -> None:
        if last is not None and event.at < last.at:
            event = event.model_copy(update={"at": last.at})
        write_line(fd, event.model_dump_json())

    def read_events(self) -> list[Event]:
        """All events so far, oldest first; empty when the log has not begun."""
        return EventTail(self.events_path).read_new()

    def write_worker(self, mark: ProcessMark) -> None:
        """Record which process works on this run."""
        self._write(self.worker_path, json.dumps(asdict(mark)) + "\n")

    def read_worker(self) -> ProcessMark | None:
        """The process that works or worked on this run; None when there was none."""
        return read_mark(self.worker_path)

    def request_stop(self) -> None:
        """Ask the worker to stop; it checks for the request between two steps."""
        with translate_os_errors(self.stop_path):
            self.stop_path.touch()

    @property
    def stop_requested(self) -> bool:
        return self.stop_path.exists()


def read_mark(path: Path) -> ProcessMark | None:
    """The process mark in a file; None when there is no such file.

    Raises:
        RunError: the file is not a process mark (code `bad-worker-file`).
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        host = {key: str(values.get(key, "")) for key in ("host", "machine", "boot", "pid_namespace")}
        return ProcessMark(int(values["pid"]), str(values["start"]), **host)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, OverflowError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} cannot be read: {error}.", "Delete that file if no worker is at work.", code="bad-worker-file"
        ) from error


def _is_being_written(draft: Path) -> bool:
    """Whether a draft belongs to another process that lives, such as the app that has just resumed the run."""
    writer = writer_of(draft)
    return writer not in (None, os.getpid()) and mark_process(int(writer or 0)) is not None


def _candidate_line(candidate: CandidateScored) -> str:
    return candidate.model_dump_json(exclude={"kind"})
