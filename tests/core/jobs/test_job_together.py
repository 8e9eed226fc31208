"""Options of different parts of the engine in one run: layer groups, fixed parameters, objectives, storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import CandidateScored, Event, Finished, PoolLoaded
from core.jobs.merge_job import run_job
from core.merging.recipes import Recipe
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.tiny_runs import Files, models_of, never, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")

TOGETHER: dict[str, Any] = {
    "method": "ties",
    "parameters": {"lambda": 0.8, "rescale": True},
    "genome": {"layer_granularity": 1, "allow_negative_weights": True},
    "objective": "constraint",
    "safety_tolerance": 5.0,
    "compare": ["equal", "bayes"],
}
BY_MERGEKIT: dict[str, Any] = {
    "method": "breadcrumbs",
    "optimizer": "bayes",
    "compare": ["evomm_expert_only"],
}


@pytest.mark.parametrize("search", [TOGETHER, BY_MERGEKIT], ids=["together", "mergekit's method, bayes"])
def test_a_run_is_the_same_wherever_its_weights_are_stored(
    search: dict[str, Any], tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    ends: list[tuple[list[Any], dict[str, str | None]]] = []
    for memory in ("resident", "compact"):
        spec = spec_of(tiny_llama, tiny_expert, files, search=search, pool={"memory": memory})
        events: list[Event] = list(run_job(spec, settings, RunFolder(settings.runs / memory), never))
        assert isinstance(events[-1], Finished), events[-1]
        assert [event.memory for event in events if isinstance(event, PoolLoaded)] == [memory]
        scored = [event for event in events if isinstance(event, CandidateScored)]
        figures = [(one.search, one.recipe, one.objective, one.violation, one.failure) for one in scored]
        ends.append((figures, {name: result.sha256 for name, result in models_of(events).items()}))
    assert ends[0] == ends[1]
    figures, hashes = ends[0]
    recipes = [Recipe.model_validate(recipe) for name, recipe, *_ in figures if name == spec.search.optimizer]
    assert len(recipes) >= 6 and not any(failure for *_, failure in figures)
    assert all(recipe.by_mergekit or recipe.scopes for recipe in recipes)
    assert len(set(hashes.values())) >= 4  # two parents, the merge and another
