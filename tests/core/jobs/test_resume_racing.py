"""Raced runs that are killed and resumed: same merge, hash and token count, and hardly a pair is scored twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import CandidateScored, Event, Finished, ModelMeasured, Warned
from core.jobs.worker import run_worker
from core.runs.folder import RunFolder
from core.runs.view import fold
from core.search.nested_subsets import NestedScorer
from core.settings import Settings
from tests.core.data.fake_models import REFUSAL
from tests.core.jobs.resuming import RunHarness, Whole, assert_same_end, count_calls, no_work, nth
from tests.tiny_runs import Files, models_of, spec_of, write_rows

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")

MOMENTS: dict[str, Callable[[], Callable[[Event], bool]]] = {
    "after a candidate was dropped": lambda: nth(CandidateScored, 9, search="evomm"),
    "among the finalists": lambda: nth(CandidateScored, 26, search="evomm"),
    "within a baseline's search": lambda: nth(CandidateScored, 5, search="evomm_expert_only"),
    "within Bayesian optimisation": lambda: nth(CandidateScored, 9, search="bayes"),
    "before the merge is measured": lambda: nth(ModelMeasured, 3),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Forty pairs of each kind, so that there are subsets."""
    folder = tmp_path_factory.mktemp("pairs")
    safety = [{"question": f"Where does umbrella number {i} sleep?", "answer": REFUSAL} for i in range(40)]
    domain = [{"question": f"What is {i} and {i * 7}?", "answer": f"The answer is {i * 8}."} for i in range(40)]
    return {
        "safety": {"source": "file", "path": write_rows(folder / "s.jsonl", safety), "k": 40},
        "domain": {"source": "file", "path": write_rows(folder / "d.jsonl", domain), "k": 40},
        "reply_tokens": 8,
    }


@pytest.fixture(scope="module")
def bench(
    bfloat16_everywhere: None,
    tiny_llama: Path,
    tiny_expert: Path,
    files: Files,
    pairs: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunHarness]:
    home = tmp_path_factory.mktemp("resume-racing")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0)
    search = {"steps": 24, "racing": True, "compare": ["evomm_expert_only", "bayes"]}
    spec = spec_of(tiny_llama, tiny_expert, files, data=pairs, search=search, evaluation={"probe": files.probe})
    work = no_work()
    part = NestedScorer.score_part

    def counted_part(self: NestedScorer, stage: int, with_safety: bool) -> object:
        work.requests["tokens"] += self.part_tokens(stage, with_safety)
        return part(self, stage, with_safety)

    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, work)
        patch.setattr(NestedScorer, "score_part", counted_part)
        yield RunHarness(spec, settings, work)


def test_a_raced_run_counts_its_tokens_and_merges_what_was_scored_on_all_pairs(whole: Whole) -> None:
    view = fold(whole.events)
    best, merged = view.best(), models_of(whole.events)["evomm"]
    assert best is not None and not best.partial
    assert (merged.recipe, merged.ce_safety, merged.ce_expert) == (best.recipe, best.ce_safety, best.ce_expert)
    assert view.result is not None
    *raced, bayes = view.result.searches
    assert [search.name for search in (*raced, bayes)] == ["evomm", "evomm_expert_only", "bayes"]
    assert sum(search.tokens_scored for search in raced) == whole.work.requests["tokens"]
    on_all_pairs = [c.tokens for c in whole.events if isinstance(c, CandidateScored) and c.search == "bayes"]
    assert bayes.tokens_scored == sum(on_all_pairs) and len(set(on_all_pairs) - {0}) == 1
    assert any(candidate.partial for candidate in view.candidates)
    assert best.candidate in view.result.searches[0].front


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_race_ends_as_one_that_was_not(moment: str, bench: RunHarness, whole: Whole) -> None:
    bench.reset()
    folder = bench.start(moment.replace(" ", "-").replace("'", ""), MOMENTS[moment]())
    bench.resume(folder)
    assert_same_end(folder, whole)
    again = bench.work.requests["tokens"] - whole.work.requests["tokens"]
    every = max(c.tokens for c in whole.events if isinstance(c, CandidateScored))
    assert 0 <= again <= 3 * every, "the best, what a finalist had read before, a first generation that is shared"
    assert bench.work.scored == whole.work.scored
    assert bench.work.measured == whole.work.measured


@pytest.mark.parametrize("objective", ["pareto", "constraint"])
def test_other_objectives_run_to_their_merge(
    objective: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    search = {"steps": 12, "objective": objective, "compare": [], "safety_tolerance": 0.0}
    spec = spec_of(tiny_llama, tiny_expert, files, search=search)
    folder = RunFolder(settings.runs / "run")
    assert isinstance(run_worker(spec, settings, folder), Finished)
    events = folder.read_events()
    view = fold(events)
    best = view.best()
    assert best is not None and models_of(events)["evomm"].recipe == best.recipe
    parents = [model.ce_safety or 0.0 for model in view.models if model.role == "parent"]
    for candidate in view.candidates:
        over = max(0.0, (candidate.ce_safety or 0.0) - min(parents))
        assert candidate.violation == (over if objective == "constraint" else 0.0)
    warned = [event for event in events if isinstance(event, Warned) and "keeps the safety loss" in event.message]
    assert bool(warned) == (best.violation > 0)
    assert (view.result is not None and best.candidate in view.result.searches[0].front) or objective == "constraint"
