"""A comparison: models of different kinds measured one after the other, unavailable parents, resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from core.contracts.comparison_spec import ComparisonSpec, any_spec_from_dict
from core.contracts.events import Event, Failed, Finished, ModelMeasured, PreflightDone, Progress, Warned
from core.errors import SpecError
from core.evaluation.replies import read_rows
from core.jobs import comparison_job
from core.jobs.comparison_job import load_model
from core.jobs.worker import resume_worker, run_worker
from core.models.fingerprint import sha256_of_model
from core.runs.folder import RunFolder
from core.runs.summaries import list_runs
from core.runs.view import fold
from core.settings import Settings
from tests.core.jobs.resuming import DEAD, Killed, nth, without_times
from tests.hub_server import HubServer
from tests.number_format import pin_number_format
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import Files, models_of


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that could not be merged with the others."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "wider", hidden_size=48, num_attention_heads=6)


@pytest.fixture(autouse=True)
def float32_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pin_number_format(monkeypatch, "float32")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose weights were read."""
    names: list[str] = []

    def counted(reference: Any, *rest: Any) -> Any:
        names.append(str(reference))
        return load_model(reference, *rest)

    monkeypatch.setattr(comparison_job, "load_model", counted)
    return names


def comparison(files: Files, *models: Path | str | tuple[Path | str, str], **evaluation: Any) -> ComparisonSpec:
    named = [model if isinstance(model, tuple) else (model, "model") for model in models]
    evaluation = {"prompts": files.prompts, "benign": files.benign, "reply_tokens": 8, **evaluation}
    spec = any_spec_from_dict(
        {"models": [{"model": str(model), "role": role} for model, role in named], "evaluation": evaluation}
    )
    assert isinstance(spec, ComparisonSpec)
    return spec


def run(spec: ComparisonSpec, settings: Settings, on_event: Callable[[Event], None] = lambda _: None) -> RunFolder:
    folder = RunFolder(settings.runs / "comparison")
    run_worker(spec, settings, folder, on_event=on_event)
    return folder


def test_models_that_cannot_be_merged_are_measured_side_by_side(
    tiny_llama: Path, tiny_lora: Path, wider: Path, files: Files, settings: Settings
) -> None:
    names = [str(wider), f"{tiny_llama}+{tiny_lora}"]
    folder = run(comparison(files, *names), settings)
    events = folder.read_events()
    assert isinstance(events[-1], Finished), events[-1]
    assert folder.read_spec() == comparison(files, *names)
    results = models_of(events)
    assert list(results) == names
    for result in results.values():
        assert result.role == "model" and result.recipe is None and not result.not_measured
        assert result.alignment and result.alignment.n == 3 and result.over_refusal and result.over_refusal.n == 1
        rows = read_rows(folder.replies_path(result.name))
        assert [row.asked for row in rows] == ["harmful"] * 3 + ["benign"]
    saved = AutoModelForCausalLM.from_pretrained(wider, dtype="float32")
    assert results[names[0]].sha256 == sha256_of_model(saved) != results[names[1]].sha256
    written = json.loads(folder.result_path.read_text())
    assert [model["name"] for model in written["models"]] == names and written["searches"] == []
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(event.done, event.total) for event in progress] == [(0, 2), (1, 2), (2, 2)]
    assert progress[0].seconds_left is None and (progress[1].seconds_left or 0) > 0
    needed = [event.host_bytes for event in events if isinstance(event, PreflightDone)]
    assert needed[0] > 1_000_000


def test_an_unavailable_parent_is_skipped_and_reported(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, hub: HubServer
) -> None:
    hub.publish("lab/gated", tiny_expert, gated=True)
    spec = comparison(
        files, (tiny_llama, "merged"), ("lab/gated", "parent"), (tiny_expert, "parent"), ("lab/gone", "parent")
    )
    folder = run(spec, settings)
    events = folder.read_events()
    assert isinstance(events[-1], Finished), events[-1]
    results = models_of(events)
    assert [bool(result.alignment) for result in results.values()] == [True, False, True, False]
    assert results["lab/gated"].not_measured and "lab/gone" in results["lab/gone"].not_measured
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert [message.split()[0] for message in warned] == ["lab/gated", "lab/gone"]
    view = fold(events)
    assert {row.status for row in view.checks if row.model == "lab/gone"} == {"warning"}


def test_without_a_merge_or_any_parent_nothing_is_measured(
    tiny_llama: Path, files: Files, settings: Settings, loaded: list[str], hub: HubServer
) -> None:
    for number, (merged, parent) in enumerate([("lab/gone", tiny_llama), (tiny_llama, "lab/gone")]):
        folder = RunFolder(settings.runs / str(number))
        end = run_worker(comparison(files, (merged, "merged"), (parent, "parent")), settings, folder)
        assert isinstance(end, Failed) and "lab/gone" in end.message and not end.traceback
    assert "--parents" in end.hint
    assert loaded == []


def test_damaged_weights_of_a_parent_are_found_when_it_is_loaded(
    tiny_llama: Path, tiny_expert: Path, tmp_path: Path, files: Files, settings: Settings
) -> None:
    from safetensors.torch import load_file, save_file

    incomplete = save_tiny_llama(tmp_path / "incomplete")
    state = load_file(incomplete / "model.safetensors")
    state.pop("model.norm.weight")
    save_file(state, incomplete / "model.safetensors", {"format": "pt"})
    spec = comparison(files, (tiny_llama, "merged"), (incomplete, "parent"), (tiny_expert, "parent"))
    results = models_of(run(spec, settings).read_events())
    assert "model.norm.weight" in results[str(incomplete)].not_measured
    assert results[str(tiny_expert)].alignment


def test_a_killed_comparison_continues_with_the_models_that_are_left(
    tiny_llama: Path, tiny_expert: Path, wider: Path, files: Files, settings: Settings, loaded: list[str]
) -> None:
    spec = comparison(files, tiny_llama, tiny_expert, wider)
    whole = RunFolder(settings.runs / "whole")
    run_worker(spec, settings, whole)
    loaded.clear()
    reached = nth(ModelMeasured, 2)

    def kill(event: Event) -> None:
        if reached(event):
            raise Killed

    with pytest.raises(Killed):
        run(spec, settings, kill)
    folder = RunFolder(settings.runs / "comparison")
    folder.write_worker(DEAD)
    assert isinstance(resume_worker(settings, folder), Finished)
    assert loaded == [str(tiny_llama), str(tiny_expert), str(wider)]
    assert _figures(folder) == _figures(whole)
    measured = [event for event in folder.read_events() if isinstance(event, ModelMeasured)]
    assert [event.result.name for event in measured] == loaded


def _figures(folder: RunFolder) -> Any:
    return [without_times(model) for model in json.loads(folder.result_path.read_text())["models"]]


@pytest.mark.parametrize(
    ("evaluation", "named"),
    [
        ({"prompts": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"suite": "POETRY"}, "POETRY"),
        ({"prompts": None, "benign": None, "fluency": False}, ""),
    ],
)
def test_an_unusable_evaluation_is_refused_before_a_model_is_loaded(
    evaluation: dict[str, Any], named: str, tiny_llama: Path, files: Files, settings: Settings, loaded: list[str]
) -> None:
    events = run(comparison(files, tiny_llama, **evaluation), settings).read_events()
    assert isinstance(events[-1], Failed) and named in events[-1].message
    assert loaded == []


def test_a_model_that_does_not_fit_into_memory_is_refused(
    tiny_llama: Path, files: Files, settings: Settings, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.preflight.comparison_check.available_memory_bytes", lambda: 1_000_000)
    events = run(comparison(files, tiny_llama), settings).read_events()
    assert isinstance(events[-1], Failed) and not events[-1].traceback
    assert loaded == []


def test_the_list_of_runs_shows_a_comparison(files: Files, settings: Settings) -> None:
    folder = RunFolder(settings.runs / "comparison")
    folder.create()
    folder.write_spec(comparison(files, "demo/aligned", "demo/chemistry"))
    (summary,) = list_runs(settings)
    assert (summary.kind, summary.pool) == ("comparison", ("demo/aligned", "demo/chemistry"))
    assert summary.best_objective is None and summary.message == ""


def test_a_spec_with_models_is_a_comparison_and_is_checked_as_one(files: Files) -> None:
    with pytest.raises(SpecError, match="demo/base"):
        any_spec_from_dict({"models": [{"model": "demo/base"}] * 2, "evaluation": {}})
    with pytest.raises(SpecError, match="pool"):
        any_spec_from_dict({"models": [{"model": "demo/base"}], "evaluation": {}, "pool": {}})
