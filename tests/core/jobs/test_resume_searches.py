"""Killed runs of every optimizer continue: nothing is scored, measured on probe questions or reported twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.contracts.events import CandidateMeasured, CandidateScored, Event, Progress
from core.evaluation.measurement import Measurer
from core.runs.view import fold
from core.settings import Settings
from tests.core.jobs.resuming import RunHarness, Whole, assert_same_end, count_calls, no_work, nth
from tests.tiny_runs import Files, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")

MOMENTS: dict[str, Callable[[], Callable[[Event], bool]]] = {
    "before a candidate of the grid is measured": lambda: nth(CandidateScored, 4, search="grid"),
    "within the grid": lambda: nth(CandidateMeasured, 5, search="grid"),
    "within a cocktail": lambda: nth(CandidateScored, 1, search="cocktail"),
    "when a search said why it ended": lambda: nth(Progress, ended_early=True),
}


@pytest.fixture(scope="module")
def bench(
    bfloat16_everywhere: None,
    tiny_llama: Path,
    tiny_expert: Path,
    files: Files,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunHarness]:
    home = tmp_path_factory.mktemp("resume-searches")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0)
    search = {
        "method": "dare_ties",
        "optimizer": "grid",
        "steps": 40,
        "stop_when_flat": 100,
        "compare": ["cocktail", "evomm_expert_only"],
    }
    evaluation = {"probe": files.probe, "probe_questions": files.questions}
    spec = spec_of(tiny_llama, tiny_expert, files, search=search, evaluation=evaluation)
    work = no_work()
    accuracy = Measurer.probe_accuracy

    def counted_accuracy(self: Measurer) -> object:
        work.probed["questions"] += 1
        return accuracy(self)

    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, work)
        patch.setattr(Measurer, "probe_accuracy", counted_accuracy)
        yield RunHarness(spec, settings, work)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_search_ends_as_one_that_was_not(moment: str, bench: RunHarness, whole: Whole) -> None:
    bench.reset()
    folder = bench.start(moment.replace(" ", "-"), MOMENTS[moment]())
    bench.resume(folder)
    assert_same_end(folder, whole)
    (why,) = fold(folder.read_events()).early_ends
    assert (why,) == fold(whole.events).early_ends
    grid = sum(isinstance(event, CandidateMeasured) for event in whole.events)
    assert whole.work.probed["questions"] == grid == 9
    assert bench.work.measured == whole.work.measured
    assert bench.work.probed["questions"] - grid == (moment == "before a candidate of the grid is measured")
    assert bench.work.scored[False] == whole.work.scored[False]
    again = bench.work.scored[True] - whole.work.scored[True]
    assert 0 <= again <= 2, "of what was measured but no candidate yet: the parents, for the cocktail"
