"""Whole runs by methods that mergekit merges itself, and what damaged or pointless checkpoints do to a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.contracts.events import CandidateScored, Event, Exported, Finished, PhaseStarted, Warned
from core.contracts.run_spec import RunSpec
from core.errors import MergeError, ModelError
from core.jobs.merge_job import run_job
from core.merging.recipes import Recipe
from core.models.fingerprint import sha256_of_folder
from core.preflight.run_check import preflight
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.core.jobs.resuming import RunHarness, Whole, Work, assert_same_end, nth
from tests.raising import raises
from tests.tiny_models import copy_model
from tests.tiny_runs import Files, models_of, never, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


def candidates_of(events: list[Event]) -> list[CandidateScored]:
    return [event for event in events if isinstance(event, CandidateScored)]


def with_expert(spec: RunSpec, expert: Path) -> RunSpec:
    pool = spec.pool.model_dump()
    experts = [*pool["experts"], {"model": str(expert)}]
    return RunSpec.model_validate(spec.model_dump() | {"pool": pool | {"experts": experts}})


def test_a_killed_search_by_random_merges_ends_as_one_that_was_not(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    search = {"method": "della", "steps": 5, "compare": ["equal"], "parameters": {"lambda": 0.9}}
    bench = RunHarness(spec_of(tiny_llama, tiny_expert, files, search=search), settings, Work(*(Counter(),) * 4))
    whole = bench.start("whole")
    events = whole.read_events()
    assert isinstance(events[-1], Finished), events[-1]
    recipes = [Recipe.model_validate(event.recipe) for event in candidates_of(events)]
    assert {recipe.method for recipe in recipes} == {"della"}
    assert all(dict(recipe.parameters)["lambda"] == 0.9 and recipe.seed == 3 for recipe in recipes)
    assert not any(event.failure for event in candidates_of(events))
    assert len({event.objective for event in candidates_of(events)}) == 5
    (exported,) = [event for event in events if isinstance(event, Exported)]
    assert exported.sha256 == models_of(events)["evomm"].sha256 == sha256_of_folder(whole.merged_path)
    assert "from seed 3" in (whole.merged_path / "README.md").read_text()
    killed = bench.start("killed", nth(CandidateScored, 3))
    bench.resume(killed)
    assert_same_end(killed, Whole(whole, events, bench.work))


def test_a_search_begun_with_old_masks_keeps_them_when_resumed(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    spec = spec_of(
        tiny_llama, tiny_expert, files, search={"method": "dare_ties", "steps": 4, "compare": ["evomm_expert_only"]}
    )
    bench = RunHarness(spec, settings, Work(*(Counter(),) * 4))
    killed = bench.start("killed", nth(CandidateScored, 2))
    lines = [json.loads(line) for line in killed.events_path.read_text(encoding="utf-8").splitlines()]
    versions = [line["recipe"].pop("mask_version") for line in lines if line["kind"] == "candidate_scored"]
    assert set(versions) == {2}
    killed.events_path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    bench.resume(killed)
    events = killed.read_events()
    assert isinstance(events[-1], Finished), events[-1]
    recipes = [Recipe.model_validate(event.recipe) for event in candidates_of(events)]
    assert len(recipes) == 8
    assert {recipe.mask_version for recipe in recipes} == {1}


def test_a_method_without_parameters_is_one_candidate_of_a_whole_run(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    spec = spec_of(tiny_llama, tiny_expert, files, search={"method": "karcher", "steps": 9})
    (row,) = [row for row in preflight(spec, settings) if row.check == "merge method"]
    assert "no parameter to search: one candidate" in row.detail
    events = list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    assert {event.search: event.candidate for event in candidates_of(events)} == {"evomm": 0, "evomm_expert_only": 0}
    models = models_of(events)
    assert models["evomm"].sha256 == models["equal"].sha256 == models["evomm_expert_only"].sha256
    assert models["evomm"].sha256 not in (models[str(tiny_llama)].sha256, models[str(tiny_expert)].sha256)


def spoiled(source: Path, folder: Path, spoil: Callable[[Path], None]) -> Path:
    copy = copy_model(source, folder)
    spoil(copy / "model.safetensors")
    return copy


def one_is_not_a_number(weights: Path) -> None:
    state = load_file(weights)
    state["model.norm.weight"][3] = torch.nan
    save_file(state, weights, metadata={"format": "pt"})


def one_is_missing(weights: Path) -> None:
    state = load_file(weights)
    del state["model.norm.weight"]
    save_file(state, weights, metadata={"format": "pt"})


def cut(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-100])


def no_header(weights: Path) -> None:
    weights.write_bytes(b"\x00" * 5)


@pytest.mark.parametrize(
    ("spoil", "error", "named", "phase"),
    [
        (one_is_not_a_number, ModelError, "model.norm.weight", "preflight"),
        (one_is_missing, ModelError, "model.norm.weight", "preflight"),
        (cut, ModelError, "model.safetensors", "preflight"),
        (no_header, ModelError, "safetensors", "preflight"),
    ],
)
def test_a_damaged_checkpoint_ends_the_run_before_the_data_is_made(
    spoil: Callable[[Path], None],
    error: type[Exception],
    named: str,
    phase: str,
    tiny_llama: Path,
    tiny_expert: Path,
    files: Files,
    settings: Settings,
    tmp_path: Path,
) -> None:
    damaged = spoiled(tiny_expert, tmp_path / "damaged", spoil)
    events: list[Event] = []
    with pytest.raises(error) as caught:
        for event in run_job(spec_of(tiny_llama, damaged, files), settings, RunFolder(settings.runs / "run"), never):
            events.append(event)
    assert named in str(caught.value)
    assert [event.phase for event in events if isinstance(event, PhaseStarted)][-1] == phase


def test_a_copy_of_the_base_alone_is_nothing_to_merge(
    tiny_llama: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    copy = copy_model(tiny_llama, tmp_path / "copy")
    with raises(MergeError, "nothing-to-merge") as caught:
        list(run_job(spec_of(tiny_llama, copy, files), settings, RunFolder(settings.runs / "run"), never))
    assert str(copy) in caught.value.message


def test_a_copy_of_the_base_beside_an_expert_is_warned_about_before_the_search(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    copy = copy_model(tiny_llama, tmp_path / "copy")
    spec = with_expert(spec_of(tiny_llama, tiny_expert, files, search={"steps": 1, "compare": []}), copy)
    events = list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    kinds = [event.kind for event in events]
    (warned,) = [event for event in events if isinstance(event, Warned) and str(copy) in event.message]
    assert events.index(warned) < kinds.index("data_ready") < kinds.index("candidate_scored")
