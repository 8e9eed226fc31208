"""Searches without a scored candidate: a baseline is skipped with a reason, the run's own search fails the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.cli.main import main
from core.contracts.events import CandidateScored, Event, Exported, Failed, Finished, Progress, Warned
from core.contracts.run_spec import RunSpec
from core.errors import MergeError
from core.jobs.worker import run_worker
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.runs.folder import RunFolder
from core.search.evaluator import Evaluator
from core.settings import Settings
from tests.core.jobs.resuming import RunHarness, Whole, Work, assert_same_end, nth
from tests.tiny_runs import Files, models_of, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


@pytest.fixture
def tiny_run(tiny_llama: Path, tiny_expert: Path, files: Files) -> Callable[..., RunSpec]:
    """Makes a spec of the tiny pool."""
    return partial(spec_of, tiny_llama, tiny_expert, files)


def fail(patch: pytest.MonkeyPatch, *, with_safety: tuple[bool, ...]) -> None:
    """Candidates of searches that score the safety set, or that do not, cannot be scored; parents can."""
    scores = Evaluator.scores

    def failing(self: Evaluator, recipe: Recipe, scores_safety: bool) -> Any:
        if scores_safety in with_safety:
            raise MergeError(f"{recipe.label} has a loss that is not finite.")
        return scores(self, recipe, scores_safety)

    patch.setattr(Evaluator, "scores", failing)


def ended_early(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Progress) and event.ended_early]


@pytest.mark.parametrize("baseline", ["evomm_expert_only", "cocktail_expert_only"])
def test_a_baseline_that_cannot_be_scored_is_skipped_and_the_merge_is_saved(
    baseline: str,
    tiny_run: Callable[..., RunSpec],
    files: Files,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail(monkeypatch, with_safety=(False,))
    search = {"compare": [baseline, "equal"]}
    spec = tiny_run(search=search, evaluation={"prompts": files.prompts})
    bench = RunHarness(spec, settings, Work(*(Counter(),) * 4))
    whole = bench.start("whole")
    events = whole.read_events()
    assert isinstance(events[-1], Finished), events[-1]
    (warned,) = [event for event in events if isinstance(event, Warned) and "end token" not in event.message]
    assert baseline in warned.message and "has a loss that is not finite" in warned.message
    assert f"'{baseline}'" in warned.hint
    assert not ended_early(events)
    assert list(models_of(events))[2:] == ["equal", "evomm"]
    (exported,) = [event for event in events if isinstance(event, Exported)]
    assert exported.sha256 == models_of(events)["evomm"].sha256
    killed = bench.start("killed", nth(CandidateScored, 8))
    bench.resume(killed)
    assert_same_end(killed, Whole(whole, events, bench.work))
    assert main(["report", str(whole.path)]) == 0
    assert warned.message in (whole.path / "report.md").read_text()


def test_a_baseline_that_cannot_be_merged_is_skipped(
    tiny_run: Callable[..., RunSpec], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = MergePool.apply

    def failing(self: MergePool, recipe: Recipe) -> None:
        if recipe.weights == (0.5,) and recipe.densities == (1.0,):
            raise MergeError(f"The merge by {recipe.label} holds values that are not finite.")
        apply(self, recipe)

    monkeypatch.setattr(MergePool, "apply", failing)
    spec = tiny_run(search={"compare": ["equal"]})
    folder = RunFolder(settings.runs / "run")
    assert isinstance(run_worker(spec, settings, folder), Finished)
    events = folder.read_events()
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert "holds values that are not finite" in warned.message and "'equal'" in warned.hint
    assert list(models_of(events))[2:] == ["evomm"]
    assert not (folder.path / "baselines" / "equal").exists()
    assert main(["report", str(folder.path)]) == 0


@pytest.mark.parametrize("optimizer", ["evomm", "bayes", "cocktail"])
def test_a_run_whose_own_search_cannot_be_scored_fails_and_says_why(
    optimizer: str, tiny_run: Callable[..., RunSpec], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, with_safety=(True, False))
    search = {"optimizer": optimizer, "steps": 20, "compare": []}
    folder = RunFolder(settings.runs / "run")
    end = run_worker(tiny_run(search=search), settings, folder)
    assert isinstance(end, Failed)
    assert f" {optimizer} " in end.message and "has a loss that is not finite" in end.message
    assert not ended_early(folder.read_events())
