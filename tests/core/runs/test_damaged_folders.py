"""A damaged run folder shows what is readable, and says what is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from core.contracts.events import Finished, is_damaged
from core.errors import RunError
from core.runs import history
from core.runs.event_tail import EventTail
from core.runs.folder import RunFolder, read_mark
from core.runs.history import QUIET_S, RunFollower, read_view
from core.runs.process import ProcessMark, acquire_lock, is_held_for, mark_started
from core.runs.replay import read_replay
from core.runs.summaries import list_runs
from core.settings import Settings
from tests.raising import raises
from tests.ui.golden import golden_events, golden_running, write_run

GARBAGE = [
    b"garbage",
    b"{",
    b"[]",
    b"123",
    b"\xff\xfe\x00",
    b'{"kind": 5}',
    b'{"kind": "progress"}',
    b"null",
    b"",
    b"[" * 5000,
]


@pytest.mark.parametrize("line", GARBAGE)
@pytest.mark.parametrize("place", [0, 5, -1])
def test_one_damaged_line_does_not_hide_the_run(settings: Settings, line: bytes, place: int) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_events()))
    whole = read_view(folder)
    lines = folder.events_path.read_bytes().splitlines(keepends=True)
    lines.insert(place if place >= 0 else len(lines) - 1, line + b"\n")
    folder.events_path.write_bytes(b"".join(lines))
    view = read_view(folder)
    assert (view.status, view.models, view.candidates) == ("finished", whole.models, whole.candidates)
    assert len(view.warnings) == len(whole.warnings) + 1 and any("damaged" in one.message for one in view.warnings)
    assert view.elapsed_s() == whole.elapsed_s()
    assert [run.status for run in list_runs(settings)] == ["finished"]
    with raises(RunError, "unknown-event"):
        folder.read_events()


def test_a_line_of_another_version_is_not_damage(settings: Settings) -> None:
    assert not is_damaged('{"kind": "teleported", "at": 1.0}')
    folder = RunFolder(write_run(settings.runs / "r", golden_events()))
    with folder.events_path.open("a") as log:
        log.write('{"kind": "teleported", "at": 1.0}\n')
    with raises(RunError, "unknown-event"):
        read_view(folder)


def test_a_followed_log_reports_damage_once(settings: Settings) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_running()))
    tail = EventTail(folder.events_path)
    assert len(tail.read_new(skip_damaged=True)) == len(golden_running())
    with folder.events_path.open("ab") as log:
        log.write(b"garbage\n")
    [warned] = tail.read_new(skip_damaged=True)
    assert warned.kind == "warned" and warned.at == golden_running()[-1].at
    assert tail.read_new(skip_damaged=True) == []


def _quiet(folder: RunFolder) -> None:
    """Make the log old."""
    then = time.time() - QUIET_S - 10
    os.utime(folder.events_path, (then, then))


def test_a_quiet_log_without_a_worker_is_not_running(settings: Settings) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_running()))
    assert read_view(folder).status == "running"  # it is written at this moment: worker.json may come
    _quiet(folder)
    view = read_view(folder)
    assert view.status == "failed" and "worker.json" in view.message and "Resume" in view.hint
    assert read_view(folder).status == "failed"


def test_a_run_that_holds_the_machine_is_running_without_its_worker_file(settings: Settings) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_running()))
    with acquire_lock(settings.runs, folder.path):
        assert is_held_for(folder.path) and not is_held_for(settings.runs / "other")
        _quiet(folder)
        assert read_view(folder).status == "running"
    assert not is_held_for(folder.path)


def test_a_folder_that_can_only_be_read_is_shown(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_running()))
    folder.write_worker(ProcessMark(os.getpid(), "an earlier process"))
    written = folder.events_path.read_bytes()

    def refuse(*_: object) -> None:
        raise RunError("events.jsonl cannot be written: Read-only file system.", code="not-writable")

    monkeypatch.setattr("core.runs.folder.locked_log", refuse)
    follower = RunFollower(folder)
    view = follower.update()
    assert view.status == "failed" and "Read-only" in view.hint and view.candidates
    assert follower.update().status == "failed" and folder.events_path.read_bytes() == written
    assert [run.status for run in list_runs(settings)] == ["failed"]


def test_a_living_worker_of_a_read_only_folder_is_running(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_running()))
    folder.write_worker(mark_started(os.getpid()))
    monkeypatch.setattr(history, "end_if_worker_died", lambda _: (_ for _ in ()).throw(RunError("x")))
    assert RunFollower(folder).update().status == "running"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"pid": Infinity, "start": "x"}', '{"pid": NaN, "start": "x"}',
     '{"pid": "x", "start": 1}',
     '{"pid": 1e999, "start": ""}', '{"pid": [1], "start": "x"}', "[" * 5000,
     "\ud800".encode("utf-8", "surrogatepass")],
)  # fmt: skip
def test_a_process_mark_of_any_content_is_explained(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "worker.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with raises(RunError, "bad-worker-file"):
        read_mark(path)


def test_a_missing_spec_is_read_from_the_log(settings: Settings) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_events()))
    folder.spec_path.unlink()
    assert [(run.status, run.message) for run in list_runs(settings)] == [("finished", "")]


def test_resuming_does_not_go_on_from_a_damaged_log(settings: Settings) -> None:
    events = [event for event in golden_events() if not isinstance(event, Finished)]
    folder = RunFolder(write_run(settings.runs / "r", events))
    with folder.events_path.open("ab") as log:
        log.write(b"garbage\n")
    with raises(RunError, "unknown-event"):
        read_replay(folder)


def test_a_linked_run_is_not_listed(settings: Settings, tmp_path: Path) -> None:
    outside = write_run(tmp_path / "outside", golden_events())
    write_run(settings.runs / "own", golden_events())
    (settings.runs / "linked").symlink_to(outside, target_is_directory=True)
    assert [run.run_id for run in list_runs(settings)] == ["own"]
