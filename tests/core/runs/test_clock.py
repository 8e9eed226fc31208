"""A clock that is set during a run, or between a run and its continuation: no time is negative or much too long."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from core.contracts import steady_time
from core.contracts.events import Event, Finished, PhaseStarted, Progress, Resumed, RunStarted
from core.contracts.results import RunResult
from core.contracts.run_spec import RunSpec
from core.errors import RunCancelled
from core.jobs.worker import resume_worker, run_worker
from core.runs.folder import RunFolder
from core.runs.history import RunFollower, read_view
from core.runs.process import mark_started
from core.settings import Settings
from safemerge_ui.views.progress import quiet_s, run_line
from tests.core.jobs.fake_jobs import job_of
from tests.core.jobs.resuming import DEAD

HOUR_S = 3600.0
JUMPS = [-26 * HOUR_S, -HOUR_S, HOUR_S, 26 * HOUR_S]


def jump(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the clock of this process forward or back."""
    now = time.time
    patch.setattr(time, "time", lambda: now() + seconds)


def start_process(patch: pytest.MonkeyPatch) -> None:
    """Let the times of events follow the clock as it is now, as in a process that starts now."""
    patch.setattr(steady_time, "_STARTED", time.time() - steady_time._passed())


@pytest.mark.parametrize("seconds", JUMPS)
def test_a_clock_that_is_set_during_a_run_changes_no_duration(
    seconds: float, spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult
) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def ending(_: Callable[[], bool]) -> Iterator[Event]:
            yield PhaseStarted(phase="search")
            jump(patch, seconds)
            yield Progress(phase="search", done=1, total=2)
            yield Finished(result=result)

        run_worker(spec, settings, folder, job=job_of(ending))
    times = [event.at for event in folder.read_events()]
    assert all(0 <= after - before < 60 for before, after in pairwise(times))
    elapsed_s = read_view(folder).elapsed_s()
    assert elapsed_s is not None and 0 <= elapsed_s < 60


@pytest.mark.parametrize("seconds", JUMPS)
def test_a_clock_that_is_set_between_stop_and_resume_counts_as_a_pause_at_most(
    seconds: float, spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult
) -> None:
    def stopping(_: Callable[[], bool]) -> Iterator[Event]:
        raise RunCancelled
        yield

    def working(*_: object) -> Iterator[Event]:
        yield PhaseStarted(phase="search")
        time.sleep(0.2)
        yield Finished(result=result)

    run_worker(spec, settings, folder, job=job_of(stopping))
    with pytest.MonkeyPatch.context() as patch:
        jump(patch, seconds)
        start_process(patch)
        resume_worker(settings, folder, job=working)
    events = folder.read_events()
    (resumed,) = [event for event in events if isinstance(event, Resumed)]
    assert resumed.paused_s == pytest.approx(max(0.0, seconds), abs=60)
    assert all(before.at <= after.at for before, after in pairwise(events))
    assert events[-1].at - events[-2].at >= 0.2, "the time of work counts, also while the clock is behind the log"
    elapsed_s = read_view(folder).elapsed_s()
    assert elapsed_s is not None and 0.2 <= elapsed_s < 60


@pytest.mark.parametrize("seconds", JUMPS)
def test_a_page_whose_clock_is_set_shows_the_time_that_passed(
    seconds: float, spec: RunSpec, settings: Settings, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.create()
    folder.write_spec(spec)
    folder.write_worker(mark_started(os.getpid()))
    folder.append_event(RunStarted(spec=spec.model_dump(mode="json")))
    follower = RunFollower(folder)
    follower.update()
    jump(monkeypatch, seconds)
    view = follower.update()
    assert view.status == "running" and quiet_s(view, follower.now) == 0
    elapsed_s = view.elapsed_s(follower.now)
    assert elapsed_s is not None and 0 <= elapsed_s < 60
    assert "no event for" not in run_line(view, "r", follower.now)


def test_a_dead_worker_of_a_log_in_the_future_is_found(
    spec: RunSpec, settings: Settings, folder: RunFolder, result: RunResult
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        jump(patch, 26 * HOUR_S)
        start_process(patch)
        run_worker(spec, settings, folder, job=job_of(lambda _: iter([Finished(result=result)])))
    lines = folder.events_path.read_text().splitlines(keepends=True)
    folder.events_path.write_text("".join(lines[:-1]))
    folder.write_worker(DEAD)
    view = read_view(folder)
    assert view.status == "failed" and (view.elapsed_s() or 0) >= 0
