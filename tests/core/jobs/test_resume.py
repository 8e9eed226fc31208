"""Runs that are killed and resumed: the same end as a run that was never killed, and no work is done twice."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import (
    Cancelled,
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
from core.data.training_pairs import read_samples
from core.errors import RunError, SpecError
from core.jobs.data_step import DataStep
from core.jobs.live_pool import LivePool
from core.jobs.worker import resume_run, resume_worker, run_worker, start_run
from core.runs.event_tail import EventTail
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.settings import Settings
from tests.core.data.fake_models import Expert, Writer, as_json, nonsense_question, refuser
from tests.core.jobs.resuming import (
    DEAD,
    RunHarness,
    Whole,
    assert_same_end,
    count_calls,
    facts,
    no_work,
    nth,
    result_of,
    without_repeats,
    without_times,
)
from tests.number_format import pin_number_format
from tests.raising import raises
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import Files, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")

KILLED_WORKER = Path(__file__).with_name("killed_worker.py")


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
) -> Iterator[RunHarness]:
    home = tmp_path_factory.mktemp("resume")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0, reply_cache_bytes=0)
    data = {"safety": {"source": "generate", "k": 6}, "domain": {"source": "generate", "k": 6}, "reply_tokens": 8}
    evaluation = {"prompts": files.prompts, "benign": files.benign, "probe": files.probe, "reply_tokens": 8}
    pool = {
        "base": str(tiny_llama),
        "experts": [{"model": str(tiny_expert), "domain": "chemistry"}],
        "generator": str(tiny_expert),
    }
    evaluation["limit"] = 4
    spec = spec_of(tiny_llama, tiny_expert, files, pool=pool, data=data, search={"steps": 12}, evaluation=evaluation)
    work = no_work()
    with pytest.MonkeyPatch.context() as patch:
        made = Expert(writer(work.requests), refuser())
        patch.setattr(DataStep, "_generator", lambda *_: made)
        patch.setattr(LivePool, "as_text_model", lambda *_: made)
        count_calls(patch, work)
        yield RunHarness(spec, settings, work)


def measured(name: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, ModelMeasured) and event.result.name == name


MOMENTS: dict[str, Callable[[], Callable[[Event], bool]]] = {
    "at the very start": lambda: nth(RunStarted),
    "within a round of safety questions": lambda: nth(SampleSeen, 3, dataset="safety"),
    "after a round of safety questions": lambda: nth(Progress, 3, phase="data"),
    "within the domain questions": lambda: nth(SampleSeen, 4, dataset="domain"),
    "with the data ready": lambda: nth(DataReady),
    "between two parents": lambda: nth(ModelMeasured, 1),
    "within a generation": lambda: nth(CandidateScored, 3, search="evomm"),
    "after a probe": lambda: nth(CandidateMeasured),
    "within a baseline's search": lambda: nth(CandidateScored, 8, search="evomm_expert_only"),
    "after a baseline was measured": lambda: measured("equal"),
    "before the merge is saved": lambda: nth(PhaseStarted, phase="export"),
    "after the merge was saved": lambda: nth(Exported),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_as_one_that_was_not(moment: str, bench: RunHarness, whole: Whole) -> None:
    bench.reset()
    folder = bench.start(moment.replace(" ", "-"), MOMENTS[moment]())
    before = folder.events_path.read_bytes()
    assert not is_terminal(folder.read_events()[-1])
    bench.resume(folder)
    assert folder.events_path.read_bytes().startswith(before)
    assert_same_end(folder, whole)
    assert bench.work[1:] == whole.work[1:]
    partial_rounds = bench.work.requests["writer"] - whole.work.requests["writer"]
    assert partial_rounds == 0 or moment.startswith("within")
    (resumed,) = [event for event in folder.read_events() if isinstance(event, Resumed)]
    assert resumed.paused_s < 60


def test_a_run_killed_again_and_again_does_nothing_twice(bench: RunHarness, whole: Whole) -> None:
    def every(count: int) -> Callable[[Event], bool]:
        new = [0]

        def reached(event: Event) -> bool:
            new[0] += isinstance(event, SampleSeen | CandidateScored | CandidateMeasured | ModelMeasured | Exported)
            return new[0] == count

        return reached

    bench.reset()
    folder = bench.start("again-and-again", every(9))
    kills = 1
    while not isinstance(folder.read_events()[-1], Finished):
        bench.resume(folder, every(9))
        kills += 1
    assert kills > 4
    assert_same_end(folder, whole)
    assert bench.work[1:] == whole.work[1:]


def test_what_a_kill_leaves_incomplete_is_repaired(bench: RunHarness, whole: Whole) -> None:
    """An incomplete line, temporary files, a candidate in only one of two logs, a merge saved but not logged."""
    folder = bench.start("half-done", MOMENTS["before the merge is saved"]())
    with folder.events_path.open("a") as log:
        log.write('{"kind":"exported","at":17')
    rows = folder.candidates_path.read_text().splitlines(keepends=True)
    folder.candidates_path.write_text("".join(rows[:-1]))
    for draft in (
        ".result.json.9999999.tmp",
        "replies/.base.jsonl.9999999-0badcafe.tmp",
        "data/.safety.jsonl.x1",
        ".merged.partial/model.safetensors",
    ):
        (folder.path / draft).parent.mkdir(exist_ok=True)
        (folder.path / draft).write_text("half")
    shutil.copytree(whole.folder.merged_path, folder.merged_path)
    saved = folder.merged_path.stat().st_ino
    bench.resume(folder)
    assert_same_end(folder, whole)
    assert folder.merged_path.stat().st_ino == saved


def test_figures_are_kept_when_the_replies_are_missing(bench: RunHarness, whole: Whole) -> None:
    bench.reset()
    folder = bench.start("no-replies", MOMENTS["after a baseline was measured"]())
    lost = folder.replies_path("equal")
    lost.unlink()
    bench.resume(folder)
    assert not lost.exists()
    assert without_times(result_of(folder)) == without_times(result_of(whole.folder))
    assert bench.work.measured == whole.work.measured


def test_a_stopped_run_continues_to_one_end_and_does_not_count_its_pause(bench: RunHarness, whole: Whole) -> None:
    def stop(event: Event) -> bool:
        if isinstance(event, CandidateScored) and event.candidate == 4:
            folder.request_stop()
        return False

    folder = RunFolder(bench.settings.runs / "stopped")
    bench.start("stopped", stop)
    tail, view = EventTail(folder.events_path), read_view(folder)
    assert view.status == "cancelled"
    seen = tail.read_new()
    set_back(folder, 3600)
    bench.resume(folder)
    assert_same_end(folder, whole)
    assert not folder.stop_requested
    (resumed,) = [event for event in folder.read_events() if isinstance(event, Resumed)]
    assert resumed.ended == "Stopped."
    assert resumed.paused_s == pytest.approx(3600, abs=60)
    elapsed_s = read_view(folder).elapsed_s()
    assert elapsed_s is not None and 600 < elapsed_s < 660
    assert 600 < result_of(folder)["seconds"] < 660
    assert isinstance(seen[-1], Cancelled)
    log = folder.read_events()
    assert tail.read_new() == log[log.index(resumed) :], "a page that saw the end gets all events after it"


def set_back(folder: RunFolder, seconds: float) -> None:
    """Make the log older, as if it had been written long ago, and its first phase ten minutes long."""
    first, *others = folder.read_events()
    events = [first.model_copy(update={"at": first.at - 600 - seconds})]
    events += [event.model_copy(update={"at": event.at - seconds}) for event in others]
    folder.events_path.write_text("".join(event.model_dump_json() + "\n" for event in events))


def test_a_worker_killed_from_outside_is_resumed(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process and a real kill -9; the number format it had measured is kept."""
    spec = spec_of(tiny_llama, tiny_expert, files, evaluation={"probe": files.probe})
    folder = RunFolder(settings.runs / start_run(spec, settings, command=(sys.executable, str(KILLED_WORKER), "3")))
    deadline = time.monotonic() + 120
    while not read_view(folder).over:
        assert time.monotonic() < deadline, folder.log_path.read_text()
        time.sleep(0.05)
    assert read_view(folder).status == "failed" and str(folder.log_path) in read_view(folder).hint
    before = [event for event in folder.read_events() if isinstance(event, CandidateScored)]
    other = {"bfloat16": "float32", "float32": "bfloat16"}
    dtype = next(event.dtype for event in folder.read_events() if isinstance(event, PoolLoaded))
    pin_number_format(monkeypatch, other[dtype])
    assert isinstance(resume_worker(settings, folder), Finished)
    pin_number_format(monkeypatch, dtype)
    assert isinstance(run_worker(spec, settings, RunFolder(settings.runs / "whole")), Finished)
    events, expected = folder.read_events(), RunFolder(settings.runs / "whole").read_events()
    assert len(before) == 3
    assert [event for event in events if isinstance(event, CandidateScored)][:3] == before
    assert without_repeats(facts(events)) == without_repeats(facts(expected))
    assert sum(is_terminal(event) for event in events) == 1


@pytest.fixture
def stopped(bench: RunHarness, whole: Whole) -> Iterator[RunFolder]:
    """A run that was killed once its merge and the merge's figures were there."""
    folder = RunFolder(bench.settings.runs / "refused")
    shutil.copytree(whole.folder.path, folder.path)
    lines = folder.events_path.read_text().splitlines(keepends=True)
    folder.events_path.write_text("".join(lines[:-2]))
    folder.write_worker(DEAD)
    yield folder
    shutil.rmtree(folder.path)


def test_a_finished_run_is_left_alone(bench: RunHarness, whole: Whole) -> None:
    before = whole.folder.events_path.read_bytes()
    bench.reset()
    assert resume_worker(bench.settings, whole.folder) == whole.events[-1]
    assert whole.folder.events_path.read_bytes() == before
    assert not any(bench.work)
    with raises(RunError, "run-finished"):
        resume_run(whole.folder, bench.settings)


def test_a_changed_spec_is_refused(bench: RunHarness, stopped: RunFolder) -> None:
    before = stopped.events_path.read_bytes()
    changed = bench.spec.model_copy(update={"search": bench.spec.search.model_copy(update={"alpha": 0.5})})
    stopped.write_spec(changed)
    with raises(SpecError, "spec-changed"):
        resume_worker(bench.settings, stopped)
    assert stopped.events_path.read_bytes() == before


def test_another_schema_version_is_refused(bench: RunHarness, stopped: RunFolder) -> None:
    log = stopped.events_path.read_text().replace('"schema_version":1', '"schema_version":9', 1)
    stopped.events_path.write_text(log)
    with raises(RunError, "log-version"):
        resume_worker(bench.settings, stopped)
    assert stopped.events_path.read_text() == log


def test_a_folder_without_a_run_is_refused(bench: RunHarness, tmp_path: Path) -> None:
    with raises(RunError, "not-a-run"):
        resume_worker(bench.settings, RunFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_changed_training_data_is_refused(bench: RunHarness, stopped: RunFolder) -> None:
    pairs = read_samples(stopped.data_path("safety"))
    stopped.write_data("safety", pairs[:-1])
    end = resume_worker(bench.settings, stopped)
    assert isinstance(end, Failed)
    assert str(stopped.data_path("safety")) in end.message and "data.safety" in end.hint
    stopped.write_data("safety", pairs)
    assert isinstance(resume_worker(bench.settings, stopped), Finished)


@pytest.mark.parametrize("content", [None, b"", b"garbage", b'{"question": "half'])
def test_damaged_training_data_is_written_again_from_the_log(
    bench: RunHarness, stopped: RunFolder, content: bytes | None
) -> None:
    path = stopped.data_path("safety")
    whole = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert isinstance(resume_worker(bench.settings, stopped), Finished)
    assert path.read_bytes() == whole


def test_different_weights_in_the_merge_folder_are_not_overwritten(bench: RunHarness, stopped: RunFolder) -> None:
    shutil.rmtree(stopped.merged_path)
    shutil.copytree(stopped.path / "baselines" / "equal", stopped.merged_path)
    end = resume_worker(bench.settings, stopped)
    assert isinstance(end, Failed)
    assert str(stopped.merged_path) in end.message and not end.traceback
    (stopped.merged_path / "model.safetensors").write_bytes(b"half")
    end = resume_worker(bench.settings, stopped)
    assert isinstance(end, Failed) and str(stopped.merged_path) in end.message and not end.traceback
    stopped.merged_path.rename(stopped.path / "aside")
    assert isinstance(resume_worker(bench.settings, stopped), Finished)


def test_a_changed_model_is_refused(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    expert = tmp_path / "expert"
    shutil.copytree(tiny_expert, expert)
    spec = spec_of(tiny_llama, expert, files, search={"steps": 2, "compare": []})
    folder = RunFolder(settings.runs / "run")
    run_worker(
        spec, settings, folder, on_event=lambda event: folder.request_stop() if measured(str(expert))(event) else 0
    )
    assert read_view(folder).status == "cancelled"
    save_tiny_llama(expert, nudge_seed=9)
    with raises(RunError, "input-changed") as caught:
        resume_worker(settings, folder)
    assert str(expert) in caught.value.message
    _forget_inputs(folder)  # as a log of a model of the Hub, which has no hash of its files
    end = resume_worker(settings, folder)
    assert isinstance(end, Failed)
    assert str(expert) in end.message and not end.traceback


def _forget_inputs(folder: RunFolder) -> None:
    started, *lines = folder.events_path.read_text().splitlines(keepends=True)
    values = json.loads(started)
    folder.events_path.write_text("".join([json.dumps({**values, "inputs": {}}) + "\n", *lines]))


def test_a_run_that_never_started_is_started(bench: RunHarness, whole: Whole) -> None:
    folder = RunFolder(bench.settings.runs / "never-began")
    folder.create()
    folder.write_spec(bench.spec)
    folder.write_worker(DEAD)
    assert read_view(folder).status == "failed"
    bench.resume(folder)
    assert isinstance(folder.read_events()[0], RunStarted)
    assert_same_end(folder, whole)
