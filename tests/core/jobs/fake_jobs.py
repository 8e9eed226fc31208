"""Shared by the tests of workers and of runs: jobs that end in every way, and helpers that read a run's log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from core.contracts.events import CandidateScored, Event, RunStarted
from core.contracts.run_spec import RunSpec
from core.jobs.worker import Job
from core.runs.folder import RunFolder
from core.settings import Settings

FAKE = Path(__file__).with_name("fake_worker.py")
Ending = Callable[[Callable[[], bool]], Iterator[Event]]


def job_of(ending: Ending) -> Job:
    """A job that starts, scores one candidate, and ends as `ending` does."""

    def job(spec: RunSpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool]) -> Iterator[Event]:
        yield RunStarted(spec=spec.model_dump(mode="json"))
        yield scored(0, 1.25)
        yield from ending(should_stop)

    return job


def raising(error: BaseException) -> Job:
    def ending(_: Callable[[], bool]) -> Iterator[Event]:
        raise error
        yield

    return job_of(ending)


def scored(number: int, objective: float) -> CandidateScored:
    return CandidateScored(
        search="evomm",
        candidate=number,
        generation=0,
        recipe={},
        objective=objective,
        ce_safety=1.0,
        ce_expert=1.0,
        seconds=0.1,
    )


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def kinds(folder: RunFolder) -> list[str]:
    return [event.kind for event in folder.read_events()]
