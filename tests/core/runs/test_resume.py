"""Runs that are killed and go on: the same end as a run that was never killed, and nothing done twice on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from core.data.samples import read_samples
from core.errors import MergeError, RunError
from core.evaluation.measuring import Measurer
from core.events import (
    CandidateMeasured,
    CandidateScored,
    DataReady,
    Event,
    Exported,
    Failed,
    Finished,
    ModelMeasured,
    PhaseStarted,
    PoolLoaded,
    Progress,
    Resumed,
    RunStarted,
    SampleSeen,
    is_terminal,
)
from core.runs import live_pool
from core.runs import job as job_module
from core.runs.folder import EventTail, RunFolder
from core.runs.live_pool import LivePool
from core.runs.process import ProcessMark
from core.runs.view import fold
from core.runs.worker import read_view, resume_worker, run_worker, start_run
from core.search.scoring import Scorer
from core.settings import Settings
from core.specs import RunSpec
from tests.core.data.fake_models import Expert, Writer, as_json, nonsense_question, refuser
from tests.core.runs.tiny_runs import Files, files_in, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")

DEAD = ProcessMark(os.getpid(), "an earlier process")


class Killed(BaseException):
    """Stands for kill -9: no boundary catches it, so nothing is written after it."""


class Work(NamedTuple):
    """How often the expensive things were done."""

    requests: Counter[str]
    scored: Counter[bool]
    probed: Counter[str]
    measured: Counter[str]


class Bench(NamedTuple):
    """A spec with generated data, where runs are, and the count of the work that is done."""

    spec: RunSpec
    settings: Settings
    work: Work

    def reset(self) -> None:
        for counter in self.work:
            counter.clear()

    def start(self, name: str, stop: Callable[[Event], bool] | None = None) -> RunFolder:
        folder = RunFolder(self.settings.runs / name)
        self._work(folder, lambda tell: run_worker(self.spec, self.settings, folder, tell=tell), stop)
        return folder

    def resume(self, folder: RunFolder, stop: Callable[[Event], bool] | None = None) -> None:
        self._work(folder, lambda tell: resume_worker(self.settings, folder, tell=tell), stop)

    def _work(
        self, folder: RunFolder, run: Callable[[Callable[[Event], None]], Event], stop: Callable[[Event], bool] | None
    ) -> None:
        """Run until `stop` says so of an event that is on disk, as if the process were killed there."""

        def tell(event: Event) -> None:
            if stop is not None and stop(event):
                raise Killed

        try:
            run(tell)
        except Killed:
            folder.write_worker(DEAD)


def writer(requests: Counter[str]) -> Writer:
    """Writes questions, some of them not in JSON, so that a training set takes several rounds."""

    def write(request: str, rng: Any) -> str:
        requests["writer"] += 1
        return as_json(nonsense_question(rng)) if rng.random() < 0.4 else "Let me think."

    return Writer(write)


@pytest.fixture(scope="module")
def bench(
    bfloat16_everywhere: None,
    tiny_llama: Path,
    tiny_expert: Path,
    files: Files,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    home = tmp_path_factory.mktemp("resume")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0)
    data = {"safety": {"source": "generate", "k": 6}, "domain": {"source": "generate", "k": 6}, "reply_tokens": 8}
    evaluation = {"prompts": files.prompts, "benign": files.benign, "probe": files.probe, "reply_tokens": 8}
    pool = {
        "base": str(tiny_llama),
        "experts": [{"model": str(tiny_expert), "domain": "chemistry"}],
        "generator": str(tiny_expert),
    }
    evaluation["limit"] = 4
    spec = spec_of(tiny_llama, tiny_expert, files, pool=pool, data=data, search={"steps": 12}, evaluation=evaluation)
    work = Work(Counter(), Counter(), Counter(), Counter())
    with pytest.MonkeyPatch.context() as patch:
        made = Expert(writer(work.requests), refuser())
        patch.setattr(job_module._Job, "_generator", lambda *_: made)
        patch.setattr(LivePool, "as_text_model", lambda *_: made)
        count_calls(patch, work)
        yield Bench(spec, settings, work)


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
    """The run that was never killed, and the work it took."""

    folder: RunFolder
    events: list[Event]
    work: Work


@pytest.fixture(scope="module")
def whole(bench: Bench) -> Whole:
    bench.reset()
    folder = bench.start("whole")
    assert isinstance(folder.read_events()[-1], Finished), folder.read_events()[-1]
    return Whole(folder, folder.read_events(), Work(*(counter.copy() for counter in bench.work)))


def facts(events: list[Event]) -> list[dict[str, Any]]:
    """What a log says, without when, how long it took, and where the run was on the way."""
    on_the_way = PhaseStarted | Progress | Resumed | Finished
    return [without_times(event.model_dump(mode="json")) for event in events if not isinstance(event, on_the_way)]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in ("at", "seconds", "rows", "path")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def without_repeats(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the checks, which every resumed run makes again."""
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
    """Says yes at the n-th event of a kind with such fields."""
    left = [number]

    def reached(event: Event) -> bool:
        match = isinstance(event, kind) and all(getattr(event, key) == value for key, value in fields.items())
        left[0] -= match
        return match and left[0] == 0

    return reached


def measured(name: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, ModelMeasured) and event.result.name == name


MOMENTS: dict[str, Callable[[], Callable[[Event], bool]]] = {
    "at the very start": lambda: nth(RunStarted),
    "while loading": lambda: nth(PhaseStarted, phase="loading"),
    "within a round of safety questions": lambda: nth(SampleSeen, 3, dataset="safety"),
    "after a round of safety questions": lambda: nth(Progress, 3, phase="data"),
    "within the domain questions": lambda: nth(SampleSeen, 4, dataset="domain"),
    "with the data ready": lambda: nth(DataReady),
    "between two parents": lambda: nth(ModelMeasured, 1),
    "within a generation": lambda: nth(CandidateScored, 3, search="evomm"),
    "after a probe": lambda: nth(CandidateMeasured),
    "within a baseline's search": lambda: nth(CandidateScored, 8, search="evomm_expert_only"),
    "after a baseline was measured": lambda: measured("equal"),
    "after the merge was measured": lambda: measured("evomm"),
    "before the merge is saved": lambda: nth(PhaseStarted, phase="export"),
    "after the merge was saved": lambda: nth(Exported),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_as_one_that_was_not(moment: str, bench: Bench, whole: Whole, tmp_path: Path) -> None:
    bench = bench._replace(settings=bench.settings)
    bench.reset()
    folder = bench.start(moment.replace(" ", "-"), MOMENTS[moment]())
    before = folder.events_path.read_bytes()
    assert not is_terminal(folder.read_events()[-1])
    bench.resume(folder)
    assert folder.events_path.read_bytes().startswith(before)
    assert_same_end(folder, whole)
    assert bench.work[1:] == whole.work[1:]
    partial_rounds = bench.work.requests["writer"] - whole.work.requests["writer"]
    assert partial_rounds == 0 or "questions" in moment
    (resumed,) = [event for event in folder.read_events() if isinstance(event, Resumed)]
    assert resumed.paused_s < 60


def test_a_run_killed_again_and_again_does_nothing_twice(bench: Bench, whole: Whole) -> None:
    def every(count: int) -> Callable[[Event], bool]:
        new = [0]

        def reached(event: Event) -> bool:
            new[0] += isinstance(event, SampleSeen | CandidateScored | CandidateMeasured | ModelMeasured | Exported)
            return new[0] == count

        return reached

    bench.reset()
    folder = bench.start("again-and-again", every(4))
    kills = 1
    while not isinstance(folder.read_events()[-1], Finished):
        bench.resume(folder, every(4))
        kills += 1
    assert kills > 8
    assert_same_end(folder, whole)
    assert bench.work[1:] == whole.work[1:]
