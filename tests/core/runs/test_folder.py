"""The run folder: whole files, whole lines, one terminal event, and a tail that waits for the end of a line."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path

import pytest

from core.contracts.events import (
    Cancelled,
    CandidateScored,
    Failed,
    Finished,
    PhaseStarted,
    Resumed,
    RunStarted,
    Warned,
)
from core.contracts.results import RunResult
from core.contracts.run_spec import RunSpec
from core.data.training_pairs import Sample, read_samples
from core.errors import RunError
from core.runs.event_tail import EventTail
from core.runs.folder import RunFolder
from core.runs.process import ProcessMark, mark_started
from tests.core.conftest import FillDisk
from tests.raising import raises

STARTED = RunStarted(at=1.0, spec={"pool": {}})
SEARCH = PhaseStarted(at=2.0, phase="search", total=3)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "20250101-000000-abcd")
    made.create()
    return made


def test_everything_written_is_read_back(folder: RunFolder, spec: RunSpec, result: RunResult) -> None:
    folder.write_spec(spec)
    folder.write_result(result)
    folder.write_data("safety", [Sample("Is this café safe?", "I cannot help with that.", "privacy")])
    folder.append_event(STARTED)
    folder.append_event(SEARCH)
    mark = ProcessMark(7, "boot:1")
    folder.write_worker(mark)

    assert folder.run_id == "20250101-000000-abcd"
    assert folder.read_spec() == spec
    assert json.loads(folder.result_path.read_text())["models"][0]["name"] == "merged"
    assert read_samples(folder.path / "data" / "safety.jsonl")[0].category == "privacy"
    assert folder.read_events() == [STARTED, SEARCH]
    assert folder.read_worker() == mark


def test_candidates_are_one_object_a_line(folder: RunFolder) -> None:
    for number in range(3):
        folder.append_candidate(
            CandidateScored(
                search="evomm",
                candidate=number,
                generation=0,
                recipe={},
                objective=1.0,
                ce_safety=0.7,
                ce_expert=1.0,
                seconds=0.1,
            )
        )
    rows = [json.loads(line) for line in folder.candidates_path.read_text().splitlines()]
    assert [row["candidate"] for row in rows] == [0, 1, 2]
    assert rows[0]["ce_safety"] == 0.7


def test_a_folder_with_a_run_in_it_is_refused(folder: RunFolder) -> None:
    folder.create()
    folder.append_event(STARTED)
    with raises(RunError, "folder-taken"):
        folder.create()


def test_append_on_a_full_disk_removes_the_incomplete_line(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, fill_disk: FillDisk
) -> None:
    folder.append_event(STARTED)
    before = folder.events_path.read_bytes()
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with raises(RunError, "disk-full"):
            folder.append_event(SEARCH)
    assert folder.events_path.read_bytes() == before
    folder.append_event(SEARCH)
    assert folder.read_events() == [STARTED, SEARCH]


def test_times_do_not_run_backwards_when_the_clock_does(folder: RunFolder) -> None:
    folder.append_event(STARTED.model_copy(update={"at": 50.0}))
    folder.append_event(SEARCH)
    folder.append_terminal(Cancelled(at=3.0))
    assert [event.at for event in folder.read_events()] == [50.0, 50.0, 50.0]


def test_reopening_a_run_replaces_its_end_by_resumed(folder: RunFolder) -> None:
    mark = ProcessMark(7, "boot:1")
    folder.append_event(STARTED)
    folder.append_event(SEARCH)
    before = folder.events_path.read_bytes()
    folder.append_terminal(Failed(at=9.0, message="No space left.", hint="x" * 20_000))
    folder.request_stop()
    folder.reopen(mark)
    log = folder.events_path.read_bytes()
    assert log.startswith(before)
    last = folder.read_events()[-1]
    assert isinstance(last, Resumed) and last.ended == "No space left."
    assert last.paused_s == pytest.approx(last.at - SEARCH.at)
    assert not folder.stop_requested and folder.read_worker() == mark


def test_a_tail_that_read_the_end_continues_with_its_replacement(folder: RunFolder) -> None:
    folder.append_event(STARTED)
    tail = EventTail(folder.events_path)
    folder.append_terminal(Cancelled())
    assert [event.kind for event in tail.read_new()] == ["run_started", "cancelled"]
    assert tail.read_new() == []
    folder.reopen(ProcessMark(7, "boot:1"))
    folder.append_event(SEARCH)
    assert [event.kind for event in tail.read_new()] == ["resumed", "phase_started"]
    assert tail.read_new() == []


def test_a_finished_run_cannot_be_reopened(folder: RunFolder, result: RunResult) -> None:
    folder.append_event(STARTED)
    folder.append_terminal(Finished(result=result))
    with raises(RunError, "run-finished"):
        folder.reopen(ProcessMark(7, "boot:1"))
    assert folder.read_events()[-1].kind == "finished"


@pytest.mark.parametrize("filler", ["", "x" * 20_000], ids=["short", "longer than a block"])
def test_appending_after_a_killed_writer_removes_its_incomplete_line(folder: RunFolder, filler: str) -> None:
    folder.append_event(STARTED)
    with folder.events_path.open("a") as log:
        log.write('{"kind":"warned","message":"' + filler)
    folder.append_event(SEARCH)
    assert folder.read_events() == [STARTED, SEARCH]


def test_tail_returns_each_event_once_and_waits_for_an_incomplete_line(folder: RunFolder) -> None:
    tail = EventTail(folder.events_path)
    assert tail.read_new() == []
    folder.append_event(STARTED)
    assert tail.read_new() == [STARTED]
    line = SEARCH.model_dump_json().encode()
    with folder.events_path.open("ab") as log:
        log.write(line[:20])
    assert tail.read_new() == []
    with folder.events_path.open("ab") as log:
        log.write(line[20:] + b"\n")
    assert tail.read_new() == [SEARCH]
    assert tail.read_new() == []


def test_tail_counts_bytes_not_characters(folder: RunFolder) -> None:
    tail = EventTail(folder.events_path)
    warnings = [Warned(at=float(n), message="déjà vu ✓ 中文") for n in range(3)]
    for warning in warnings:
        folder.append_event(warning)
        assert tail.read_new() == [warning]


def test_a_line_that_is_no_event_is_named(folder: RunFolder) -> None:
    folder.events_path.write_text('{"kind":"from_the_future"}\n')
    with raises(RunError, "unknown-event"):
        folder.read_events()


def test_a_log_ends_once(folder: RunFolder) -> None:
    folder.append_event(STARTED)
    assert folder.append_terminal(Cancelled())
    assert not folder.append_terminal(Failed(message="too late"))
    for late in (SEARCH, Failed(message="too late")):
        with raises(RunError, "log-ended"):
            folder.append_event(late)
    assert [event.kind for event in folder.read_events()] == ["run_started", "cancelled"]
    folder.reopen(ProcessMark(7, "boot:1"))
    folder.append_event(SEARCH)
    assert [event.kind for event in folder.read_events()] == ["run_started", "resumed", "phase_started"]


def test_ending_a_log_waits_for_another_writer(folder: RunFolder) -> None:
    folder.append_event(STARTED)
    with folder.events_path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        late = threading.Thread(target=folder.append_terminal, args=(Failed(message="too late"),))
        late.start()
        late.join(timeout=0.3)
        assert late.is_alive()
        other.write(Cancelled().model_dump_json().encode() + b"\n")
    late.join()
    assert [event.kind for event in folder.read_events()] == ["run_started", "cancelled"]


def test_stop_is_a_file(folder: RunFolder) -> None:
    assert not folder.stop_requested
    folder.request_stop()
    assert folder.stop_requested
    assert (folder.path / "stop").exists()


def test_a_broken_worker_file_is_an_explained_error(folder: RunFolder) -> None:
    assert folder.read_worker() is None
    for broken in ("{}", "[]"):
        folder.worker_path.write_text(broken)
        with raises(RunError, "bad-worker-file"):
            folder.read_worker()


def test_a_worker_file_of_an_older_version_has_no_host(folder: RunFolder) -> None:
    folder.worker_path.write_text('{"pid": 7, "start": "boot:1"}\n')
    assert folder.read_worker() == ProcessMark(7, "boot:1")
    folder.write_worker(mark_started(os.getpid()))
    assert {"pid", "start", "host", "boot", "pid_namespace"} <= json.loads(folder.worker_path.read_text()).keys()


def test_repairing_leaves_drafts_of_other_living_processes(folder: RunFolder) -> None:
    """The app that resumes a run writes worker.json while the worker repairs the folder."""
    folder.create()
    other = os.getppid()
    living, mine, dead = (folder.path / f".worker.json.{pid}-0a.tmp" for pid in (other, os.getpid(), 9_999_999))
    for draft in (living, mine, dead):
        draft.write_text("half")
    folder.repair([])
    assert [path.name for path in folder.path.iterdir()] == [living.name]
