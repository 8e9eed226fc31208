"""Following runs: each log is read once, piece by piece, and only existing runs are opened."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from core.contracts.events import Cancelled, Event, Failed
from core.errors import RunError
from core.runs import history
from core.runs.folder import RunFolder
from core.runs.process import mark_process, mark_started
from core.runs.view import RunView, fold
from core.settings import Settings
from safemerge_ui.watch import CAPACITY, RunWatch
from tests.raising import raises
from tests.ui.golden import golden_events, golden_running, write_run


def test_a_growing_log_is_followed_to_its_end(settings: Settings) -> None:
    events = golden_events()
    write_run(settings.runs / "r", events[:40])
    watch = RunWatch(settings.runs)
    first = watch.look("r")
    assert first.revision == 40
    assert watch.look("r").view is first.view
    for event in events[40:]:
        RunFolder(settings.runs / "r").append_event(event)
    last = watch.look("r")
    assert (last.revision, last.view.status) == (len(events), "finished")


def test_a_run_that_is_resumed_is_followed_again(settings: Settings) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_running()))
    folder.append_terminal(Failed(message="No space left.", hint="Free disk space."))
    watch = RunWatch(settings.runs)
    failed = watch.look("r")
    assert (failed.view.status, failed.view.message) == ("failed", "No space left.")
    mark = mark_process(os.getpid())
    assert mark is not None
    folder.reopen(mark)
    resumed = watch.look("r")
    assert (resumed.view.status, resumed.view.message) == ("running", "")
    assert resumed.revision > failed.revision
    folder.append_terminal(Cancelled())
    assert watch.look("r").view.status == "cancelled"


@pytest.mark.parametrize("name", ["", ".", "..", "../runs", "missing", "/etc"])
def test_only_existing_runs_are_opened(settings: Settings, name: str) -> None:
    write_run(settings.runs / "r", golden_running())
    with raises(RunError, "no-run"):
        RunWatch(settings.runs).look(name)


def test_runs_beyond_the_capacity_are_read_again(settings: Settings) -> None:
    names = [f"r{i}" for i in range(CAPACITY + 2)]
    watch = RunWatch(settings.runs)
    for name in names:
        write_run(settings.runs / name, golden_running())
        watch.look(name)
    assert watch.look(names[0]).revision == len(golden_running())


def test_a_run_without_a_worker_does_not_make_the_machine_busy(settings: Settings) -> None:
    write_run(settings.runs / "r", golden_running())
    assert RunWatch(settings.runs).busy_run() is None
    assert RunWatch(settings.runs / "none").busy_run() is None


def test_a_tick_folds_only_what_is_new(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    events = golden_events()
    write_run(settings.runs / "r", events[:40])
    watch = RunWatch(settings.runs)
    watch.look("r")
    folded: list[int] = []

    def counted(new: list[Event], view: RunView) -> RunView:
        folded.append(len(new))
        return fold(new, view)

    monkeypatch.setattr(history, "fold", counted)
    for event in events[40:60]:
        RunFolder(settings.runs / "r").append_event(event)
        watch.look("r")
    assert sum(folded) == 20
    assert watch.look("r").view == fold(events[:60])


def test_a_run_on_another_host_is_shown_as_running_and_does_not_make_this_machine_busy(settings: Settings) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_running()))
    mark = mark_started(os.getpid())
    folder.write_worker(replace(mark, host="another-host"))
    watch = RunWatch(settings.runs)
    assert watch.look("r").view.status == "running"
    assert [run.status for run in watch.list_runs()] == ["running"]
    assert (watch.busy_run(), watch.busy_needs()) == (None, None)
    folder.write_worker(mark)
    assert watch.busy_run() == "r"


def test_the_list_of_runs_has_the_figures_of_the_merged_model(settings: Settings) -> None:
    write_run(settings.runs / "half", golden_running())
    write_run(settings.runs / "done", golden_events())
    half, done = RunWatch(settings.runs).list_runs()
    assert half.merged is None
    assert done.merged is not None and done.merged.role == "merged" and done.merged.alignment is not None
