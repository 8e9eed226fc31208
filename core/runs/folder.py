"""A run is a folder, readable without us: this file knows its layout and writes it so that no half file is seen.

    spec.yaml, events.jsonl, candidates.jsonl, result.json, data/safety.jsonl, data/domain.jsonl, merged/
    replies/ (the measured replies, a file a model)
    disputed.jsonl (where several guards judge: replies to test prompts on which they differ)
    worker.json (who works on it), worker.log (what the worker's libraries said), stop (its end was asked for)

Whole files are written beside their place and renamed into it. Logs grow line by line; a line that could not be
written whole is taken back, and readers wait for the end of a line. One whole line may be taken back: the event that
ended a run, when the run is resumed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from core.contracts.comparison_spec import AnySpec, load_any_spec
from core.contracts.events import (
    Cancelled,
    CandidateScored,
    DisputedReply,
    Event,
    Failed,
    Finished,
    Resumed,
    is_terminal,
    parse_event,
)
from core.contracts.results import RunResult
from core.data.training_pairs import Dataset, Sample, write_samples
from core.errors import RunError
from core.evaluation.replies import ReplyRow, replies_name, rows_text
from core.runs.durable import append_line, last_line, locked_log, translate_errors, write_atomic, write_line
from core.runs.process import ProcessMark


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Holds nothing but the path: what is in the folder is the state.

    Every writing method raises `RunError` when the disk is full or the folder cannot be written, and leaves what
    was there before.
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
        """Where the merged model is saved."""
        return self.path / "merged"

    @property
    def log_path(self) -> Path:
        """What the worker's libraries print."""
        return self.path / "worker.log"

    @property
    def worker_path(self) -> Path:
        return self.path / "worker.json"

    @property
    def stop_path(self) -> Path:
        return self.path / "stop"

    def data_path(self, dataset: Dataset) -> Path:
        """The file of the safety or domain pairs."""
        return self.path / "data" / f"{dataset}.jsonl"

    def replies_path(self, name: str) -> Path:
        """The file of a measured model's replies; `core.evaluation.replies.read_rows` reads it."""
        return self.path / "replies" / replies_name(name)

    def create(self) -> None:
        """Make the folder; one that is there may be used as long as no run is in it."""
        if self.events_path.exists():
            raise RunError(f"{self.path} already holds a run.", "Give another folder.")
        with translate_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def write_spec(self, spec: AnySpec) -> None:
        write_atomic(self.spec_path, spec.to_yaml())

    def read_spec(self) -> AnySpec:
        """The spec of this run; raises `SpecError` when it is missing or wrong."""
        return load_any_spec(self.spec_path)

    def write_result(self, result: RunResult) -> None:
        write_atomic(self.result_path, json.dumps(result.to_json_dict(), indent=2, ensure_ascii=False) + "\n")

    def write_data(self, dataset: Dataset, samples: Iterable[Sample]) -> None:
        """Write the safety or domain pairs; `core.data.training_pairs.read_samples` reads them back."""
        with translate_errors(self.data_path(dataset)):
            write_samples(self.data_path(dataset), samples)

    def write_disputed(self, replies: Iterable[DisputedReply]) -> None:
        """Write the replies to test prompts on which guards differ, as `disputed.jsonl`."""
        write_atomic(self.path / "disputed.jsonl", "".join(reply.model_dump_json() + "\n" for reply in replies))

    def write_replies(self, name: str, rows: Iterable[ReplyRow]) -> None:
        """Write what a model replied to the test prompts."""
        write_atomic(self.replies_path(name), rows_text(rows))

    def append_candidate(self, candidate: CandidateScored) -> None:
        append_line(self.candidates_path, _candidate_line(candidate))

    def tidy_up(self, candidates: Iterable[CandidateScored]) -> None:
        """Mend what a killed worker may have left: drafts of files, and a candidate that only the log has."""
        for pattern in (".*.tmp", "replies/.*.tmp", "data/.*.jsonl.*"):
            for draft in self.path.glob(pattern):
                draft.unlink(missing_ok=True)
        if lines := [_candidate_line(candidate) + "\n" for candidate in candidates]:
            write_atomic(self.candidates_path, "".join(lines))

    def append_event(self, event: Event) -> None:
        """Add an event to the log; where the clock was set back, with the time of the event before."""
        with locked_log(self.events_path) as fd:
            self._write_event(fd, event, self._last_event(fd))

    def append_terminal(self, event: Event, only_if: Callable[[], bool] = lambda: True) -> bool:
        """End the log with `event` unless it has ended; safe when several viewers do so at once.

        Args:
            event: the end.
            only_if: asked once nobody else can write to the log; False leaves it as it is.

        Returns:
            True when `event` is the log's end now.
        """
        with locked_log(self.events_path) as fd:
            last = self._last_event(fd)
            if (last is not None and is_terminal(last)) or not only_if():
                return False
            self._write_event(fd, event, last)
        return True

    def take_up(self, worker: ProcessMark) -> None:
        """Go on with a run that stopped before its end: its last event is not an end any more.

        The event that ended it gives way to `Resumed`, the request to stop is taken back, and `worker` is the one
        that works on it, all while nobody else can write to the log.

        Raises:
            RunError: a worker is at work on it, or it is finished.
        """
        with locked_log(self.events_path) as fd:
            last = self._last_event(fd)
            at_work = self.read_worker()
            if isinstance(last, Finished):
                raise RunError(f"The run {self.run_id} is finished already.", "Open its result, or start a new run.")
            if (last is None or not is_terminal(last)) and at_work is not None and at_work.alive:
                raise RunError(f"The run {self.run_id} is at work (process {at_work.pid}).", "Follow or stop it.")
            self.write_worker(worker)
            self.stop_path.unlink(missing_ok=True)
            self._take_end_back(fd, last)

    def _take_end_back(self, fd: int, last: Event | None) -> None:
        ended = "The worker was gone."
        if isinstance(last, Failed | Cancelled):
            ended = last.message
            os.ftruncate(fd, last_line(fd)[0])
            last = self._last_event(fd)
        if last is not None:  # else nothing was done yet: the log begins as any other
            now = time.time()
            self._write_event(fd, Resumed(at=now, ended=ended, paused_s=max(0.0, now - last.at)), last)

    def _last_event(self, fd: int) -> Event | None:
        line = last_line(fd)[1]
        return _parse_line(line, self.events_path) if line else None

    def _write_event(self, fd: int, event: Event, last: Event | None) -> None:
        if last is not None and event.at < last.at:
            event = event.model_copy(update={"at": last.at})
        write_line(fd, event.model_dump_json())

    def read_events(self) -> list[Event]:
        """All events so far, oldest first; empty when the log has not begun."""
        return EventTail(self.events_path).read_new()

    def write_worker(self, mark: ProcessMark) -> None:
        """Record which process works on this run."""
        write_atomic(self.worker_path, json.dumps(asdict(mark)) + "\n")

    def read_worker(self) -> ProcessMark | None:
        """The process that works or worked on this run; None when none ever did."""
        try:
            values = json.loads(self.worker_path.read_text(encoding="utf-8"))
            return ProcessMark(int(values["pid"]), str(values["start"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.worker_path} cannot be read: {error}.", "Delete that file if no run works."
            ) from error

    def request_stop(self) -> None:
        """Ask the worker to end; it sees so between two steps."""
        with translate_errors(self.stop_path):
            self.stop_path.touch()

    @property
    def stop_requested(self) -> bool:
        return self.stop_path.exists()


def _candidate_line(candidate: CandidateScored) -> str:
    return candidate.model_dump_json(exclude={"kind"})


class EventTail:
    """Reads a growing `events.jsonl` piece by piece; each event is returned once.

    An end that was taken back since the last call (`RunFolder.take_up`) stays said; what came in its place is new.

    Args:
        path: the log, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._last_line = b""

    def read_new(self) -> list[Event]:
        """The events since the last call; a last line without its end is left for the next call.

        Raises:
            RunError: a complete line is not an event.
        """
        try:
            with self.path.open("rb") as log:
                log.seek(self._offset - len(self._last_line))
                grown = log.read()
        except FileNotFoundError:
            return []
        start = self._offset - len(self._last_line)
        if grown.startswith(self._last_line):
            start, grown = self._offset, grown[len(self._last_line) :]
        complete = grown[: grown.rfind(b"\n") + 1]
        if not complete:
            return []
        lines = complete.splitlines(keepends=True)
        events = [_parse_line(line, self.path) for line in lines]
        self._offset, self._last_line = start + len(complete), lines[-1]
        return events


def _parse_line(line: bytes, path: Path) -> Event:
    try:
        return parse_event(line.decode("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} has a line that is not an event this version knows: {line[:80]!r}.",
            "The log was changed, or written by a newer version.",
        ) from error
