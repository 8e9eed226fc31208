"""Shared by tests of resumed runs: kill a run at a given event, count the work done, compare the results."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from core.contracts.events import (
    CandidateScored,
    Event,
    Finished,
    PhaseStarted,
    Progress,
    Resumed,
    is_terminal,
)
from core.contracts.run_spec import RunSpec
from core.evaluation.measurement import Measurer
from core.jobs.worker import resume_worker, run_worker
from core.runs.folder import RunFolder
from core.runs.process import ProcessMark
from core.runs.view import fold
from core.search.scoring import Scorer
from core.settings import Settings
from tests.tiny_runs import files_in

DEAD = ProcessMark(os.getpid(), "an earlier process")


class Killed(BaseException):
    """Simulates kill -9: no boundary catches it, so nothing is written after it."""


class Work(NamedTuple):
    """Counters of the expensive operations."""

    requests: Counter[str]
    scored: Counter[bool]
    probed: Counter[str]
    measured: Counter[str]


def no_work() -> Work:
    """Counters at zero."""
    return Work(Counter(), Counter(), Counter(), Counter())


class RunHarness(NamedTuple):
    """A spec with generated data, the settings, and counters of the work done."""

    spec: RunSpec
    settings: Settings
    work: Work

    def reset(self) -> None:
        for counter in self.work:
            counter.clear()

    def run_whole(self) -> Whole:
        """Run without an interruption; the work is counted from nothing."""
        self.reset()
        folder = self.start("whole")
        events = folder.read_events()
        assert isinstance(events[-1], Finished), events[-1]
        return Whole(folder, events, Work(*(counter.copy() for counter in self.work)))

    def start(self, name: str, stop: Callable[[Event], bool] | None = None) -> RunFolder:
        folder = RunFolder(self.settings.runs / name)
        self._work(folder, lambda on_event: run_worker(self.spec, self.settings, folder, on_event=on_event), stop)
        return folder

    def resume(self, folder: RunFolder, stop: Callable[[Event], bool] | None = None) -> None:
        self._work(folder, lambda on_event: resume_worker(self.settings, folder, on_event=on_event), stop)

    def _work(
        self, folder: RunFolder, run: Callable[[Callable[[Event], None]], Event], stop: Callable[[Event], bool] | None
    ) -> None:
        """Run until `stop` returns True for an event on disk, as if the process were killed there."""

        def on_event(event: Event) -> None:
            if stop is not None and stop(event):
                raise Killed

        try:
            run(on_event)
        except Killed:
            folder.write_worker(DEAD)


def count_calls(patch: pytest.MonkeyPatch, work: Work) -> None:
    """The real scoring and measuring, counted."""
    score, probe, measure = Scorer.score, Measurer.probe, Measurer.measure

    def counted_score(self: Scorer, *, with_safety: bool = True) -> Any:
        work.scored[with_safety] += 1
        return score(self, with_safety=with_safety)

    def counted_probe(self: Measurer) -> Any:
        work.probed["probe"] += 1
        return probe(self)

    def counted_measure(self: Measurer, name: str, *arguments: Any, **known: Any) -> Any:
        work.measured[name] += 1
        return measure(self, name, *arguments, **known)

    patch.setattr(Scorer, "score", counted_score)
    patch.setattr(Measurer, "probe", counted_probe)
    patch.setattr(Measurer, "measure", counted_measure)


class Whole(NamedTuple):
    """A run that was never killed, and the work it did."""

    folder: RunFolder
    events: list[Event]
    work: Work


def facts(events: list[Event]) -> list[dict[str, Any]]:
    """The content of a log without times, durations and progress."""
    on_the_way = PhaseStarted | Progress | Resumed | Finished
    return [without_times(event.model_dump(mode="json")) for event in events if not isinstance(event, on_the_way)]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_times(item)
            for key, item in value.items()
            if key not in ("at", "seconds", "rows", "path", "dtype_reason")
        }
    return [without_times(item) for item in value] if isinstance(value, list) else value


def without_repeats(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the checks, which every resumed run repeats."""
    return [event for event in events if event["kind"] != "preflight_done"]


def result_of(folder: RunFolder) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(folder.result_path.read_text(encoding="utf-8"))
    result.pop("peak_memory_bytes")
    return result


def artefacts(folder: RunFolder) -> dict[str, bytes]:
    """Every file that must not differ between a run that was killed and one that was not."""
    varying = {"events.jsonl", "candidates.jsonl", "result.json", "worker.json"}
    return {name: (folder.path / name).read_bytes() for name in files_in(folder.path) - varying}


def assert_same_end(folder: RunFolder, whole: Whole) -> None:
    events = folder.read_events()
    assert isinstance(events[-1], Finished), events[-1]
    assert [event.kind for event in events if is_terminal(event)] == ["finished"]
    assert without_repeats(facts(events)) == without_repeats(facts(whole.events))
    assert without_times(result_of(folder)) == without_times(result_of(whole.folder))
    assert artefacts(folder) == artefacts(whole.folder)
    numbers = Counter((event.search, event.candidate) for event in events if isinstance(event, CandidateScored))
    assert set(numbers.values()) == {1}
    rows = [json.loads(line) for line in folder.candidates_path.read_text().splitlines()]
    assert Counter((row["search"], row["candidate"]) for row in rows) == numbers
    assert all(before.at <= after.at for before, after in pairwise(events))
    view, expected = fold(events), fold(whole.events)
    assert (view.status, view.phase, view.best()) == ("finished", "export", same_time(expected.best(), view.best()))
    assert [len(part) for part in (view.samples, view.candidates, view.measured, view.models)] == [
        len(part) for part in (expected.samples, expected.candidates, expected.measured, expected.models)
    ]


def same_time(event: CandidateScored | None, other: CandidateScored | None) -> CandidateScored | None:
    assert event and other
    return event.model_copy(update={"at": other.at, "seconds": other.seconds})


def nth(kind: type[Event], number: int = 1, **fields: Any) -> Callable[[Event], bool]:  # type: ignore[valid-type]
    """A function that returns True at the n-th event of a kind with these field values."""
    left = [number]

    def reached(event: Event) -> bool:
        match = isinstance(event, kind) and all(getattr(event, key) == value for key, value in fields.items())
        left[0] -= match
        return match and left[0] == 0

    return reached
