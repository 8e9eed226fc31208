"""Whole runs with layer groups by Bayesian optimization; a killed run has the same end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from core.contracts.events import CandidateScored, Event, Failed, Warned
from core.jobs.merge_job import run_job
from core.jobs.worker import run_worker
from core.merging.recipes import Recipe
from core.models.fingerprint import sha256_of_model
from core.runs.folder import RunFolder
from core.runs.view import fold
from core.settings import Settings
from tests.core.jobs.resuming import RunHarness, Whole, assert_same_end, count_calls, no_work, nth
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import Files, models_of, never, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")

GROUPS = {"layer_granularity": 1, "filters": ["self_attn"]}


@pytest.fixture(scope="module")
def bench(
    bfloat16_everywhere: None,
    tiny_llama: Path,
    tiny_expert: Path,
    files: Files,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunHarness]:
    home = tmp_path_factory.mktemp("resume-genome")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0)
    search = {"optimizer": "bayes", "steps": 24, "compare": ["evomm_expert_only"], "genome": GROUPS}
    spec = spec_of(tiny_llama, tiny_expert, files, search=search, evaluation={"probe": files.probe})
    work = no_work()
    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, work)
        yield RunHarness(spec, settings, work)


def candidates_of(events: list[Event], search: str) -> list[CandidateScored]:
    return [event for event in events if isinstance(event, CandidateScored) and event.search == search]


def test_a_run_ends_with_its_best_scored_candidate(whole: Whole) -> None:
    found = candidates_of(whole.events, "bayes")
    assert 6 <= len(found) <= 24
    result = models_of(whole.events)["bayes"]
    assert result.recipe == min(found, key=lambda candidate: candidate.objective).recipe
    assert result.role == "merged"
    recipe = Recipe.model_validate(result.recipe)
    assert [scope.label for scope in recipe.scopes] == [
        "block 0, self_attn",
        "block 0",
        "block 1, self_attn",
        "block 1",
    ]
    assert sha256_of_model(AutoModelForCausalLM.from_pretrained(whole.folder.merged_path)) == result.sha256
    assert "slices:" in (whole.folder.merged_path / "mergekit_config.yml").read_text()
    assert fold(whole.events).main_search == "bayes"
    baseline = models_of(whole.events)["evomm_expert_only"].recipe
    assert baseline and len(baseline["scopes"]) == 4


def test_each_candidate_that_is_read_costs_all_tokens(whole: Whole) -> None:
    view = fold(whole.events)
    assert view.result is not None
    for search in view.result.searches:
        tokens = [candidate.tokens for candidate in candidates_of(whole.events, search.name)]
        assert search.tokens_scored == sum(tokens) > 0
        assert len(set(tokens) - {0}) == 1


MOMENTS: dict[str, Callable[[], Callable[[Event], bool]]] = {
    "among its first candidates": lambda: nth(CandidateScored, 3, search="bayes"),
    "among those that its model chose": lambda: nth(CandidateScored, 5, search="bayes"),
    "in the baseline": lambda: nth(CandidateScored, 5, search="evomm_expert_only"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_search_has_the_same_end(moment: str, bench: RunHarness, whole: Whole) -> None:
    bench.reset()
    folder = bench.start(moment.replace(" ", "-"), MOMENTS[moment]())
    bench.resume(folder)
    assert_same_end(folder, whole)
    for search in ("bayes", "evomm_expert_only"):
        again, first = (candidates_of(events, search) for events in (folder.read_events(), whole.events))
        assert [candidate.recipe for candidate in again] == [candidate.recipe for candidate in first]


def test_inactive_parameters_are_reported_and_not_searched(
    tiny_llama: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    expert = save_tiny_llama(tmp_path / "late", num_hidden_layers=2)
    model = AutoModelForCausalLM.from_pretrained(expert)
    model.model.layers[1].mlp.up_proj.weight.data += 0.05
    model.save_pretrained(expert)
    search = {"steps": 4, "compare": [], "genome": GROUPS}
    spec = spec_of(tiny_llama, expert, files, search=search)
    events = list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    (note,) = [event.message for event in events if isinstance(event, Warned)]
    assert note.startswith("6 of 8 ")
    recipes = [Recipe.model_validate(candidate.recipe) for candidate in candidates_of(events, "evomm")]
    assert {tuple(scope.label for scope in recipe.scopes) for recipe in recipes} == {("block 1",)}
    assert len({recipe.weights for recipe in recipes}) == 4


@pytest.mark.parametrize("method", ["ties", "linear"])
def test_groups_work_with_an_outside_ancestor(
    method: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    other = save_tiny_llama(tmp_path / "other", nudge_seed=2)
    pool = {"base": str(tiny_expert), "experts": [{"model": str(other)}], "ancestor": str(tiny_llama)}
    genome = {"layer_granularity": 1, "smooth": True, "normalize": True, "allow_negative_weights": True}
    search = {"steps": 3, "method": method, "compare": ["bayes"], "genome": genome}
    spec = spec_of(tiny_expert, other, files, pool=pool, search=search)
    folder = RunFolder(settings.runs / "run")
    models = models_of(list(run_job(spec, settings, folder, never)))
    recipe = models["evomm"].recipe
    assert recipe and recipe["base"] == str(tiny_llama) and len(recipe["scopes"]) == 2
    assert all(len(scope["weights"]) == (3 if method == "linear" else 2) for scope in recipe["scopes"])
    assert method != "linear" or all(scope["weights"][0] == 0 for scope in recipe["scopes"])
    assert sha256_of_model(AutoModelForCausalLM.from_pretrained(folder.merged_path)) == models["evomm"].sha256


@pytest.mark.parametrize(
    ("genome", "named"),
    [({"layer_granularity": 9}, "9"), ({"filters": ["nothing"]}, "'nothing'")],
)
def test_a_genome_that_the_model_lacks_is_refused_before_loading(
    genome: dict[str, Any], named: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    folder = RunFolder(settings.runs / "run")
    end = run_worker(spec_of(tiny_llama, tiny_expert, files, search={"genome": genome}), settings, folder)
    assert isinstance(end, Failed) and named in end.message
    assert {event.phase for event in folder.read_events() if hasattr(event, "phase")} == {"preflight"}
