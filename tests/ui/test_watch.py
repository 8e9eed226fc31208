"""Following runs: read once, piece by piece, whoever asks, and only runs that are there."""

from __future__ import annotations

import os

import pytest

from core.contracts.events import Cancelled, Failed
from core.errors import RunError
from core.runs.folder import RunFolder
from core.runs.process import mark_process
from core.settings import Settings
from safemerge_ui.watch import CAPACITY, RunWatch, merged_figures
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
def test_only_runs_that_are_there_are_opened(settings: Settings, name: str) -> None:
    write_run(settings.runs / "r", golden_running())
    with pytest.raises(RunError):
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


def test_merged_figures_come_from_the_result_file(settings: Settings) -> None:
    done = RunFolder(write_run(settings.runs / "done", golden_events()))
    assert (merged := merged_figures(done)) is not None
    assert merged.role == "merged"
    assert merged_figures(RunFolder(write_run(settings.runs / "half", golden_running()))) is None
