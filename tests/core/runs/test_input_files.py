"""Files that a result rests on are recorded by hash, and a resumed run refuses other ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.comparison_spec import AnySpec, any_spec_from_dict
from core.contracts.events import Failed, ModelMeasured, RunStarted
from core.contracts.results import ModelResult
from core.errors import RunError
from core.merging.recipes import Recipe
from core.runs import input_files
from core.runs.folder import RunFolder
from core.runs.input_files import hash_inputs, named_files, named_models, refuse_changed_inputs
from core.runs.replay import read_replay
from core.settings import Settings
from tests.raising import raises
from tests.tiny_models import copy_model
from tests.ui.golden import write_run

FILES = ("prompts", "benign", "probe", "probe_questions", "safety", "domain", "mixed", "examples")


@pytest.fixture
def spec(tmp_path: Path) -> AnySpec:
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in FILES}
    for name, path in paths.items():
        Path(path).write_text(f'{{"prompt": "{name}?"}}\n')
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text("task: own\n")
    mixed = {"source": "file", "path": paths["mixed"], "k": 2}
    domain = {"name": "x", "examples": paths["examples"]}
    return any_spec_from_dict({
        "pool": {"base": "org/a", "experts": [{"model": "org/b", "domain": domain}]},
        "data": {
            "safety": {"source": "file", "path": paths["safety"], "mix": [mixed]},
            "domain": {"source": "file", "path": paths["domain"]},
        },
        "evaluation": {name: paths[name] for name in FILES[:4]} | {"include_path": str(tmp_path / "tasks")},
    })  # fmt: skip


def test_every_file_of_a_spec_is_hashed(spec: AnySpec, tmp_path: Path) -> None:
    hashes = hash_inputs(spec)
    assert {Path(path).stem for path in hashes} == {*FILES, "tasks"} and len(set(hashes.values())) == len(hashes)
    assert len(named_files(spec)) == len(FILES)
    Path(named_files(spec)[0]).unlink()
    assert len(hash_inputs(spec)) == len(FILES)


@pytest.mark.parametrize("name", [*FILES, "tasks/own.yaml", "tasks/new.yaml"])
@pytest.mark.parametrize("how", ["edited", "deleted"])
def test_a_resumed_run_refuses_another_file(
    spec: AnySpec, tmp_path: Path, settings: Settings, name: str, how: str
) -> None:
    started = RunStarted(spec=spec.model_dump(mode="json"), inputs=hash_inputs(spec))
    folder = RunFolder(write_run(settings.runs / "r", [started, Failed(message="No space left.")]))
    assert read_replay(folder).events
    path = tmp_path / (name if "/" in name else f"{name}.jsonl")
    if how == "edited":
        path.write_text('{"prompt": "another one?"}\n')
    elif path.exists():
        path.unlink()
    else:
        return
    with raises(RunError, "input-changed") as caught:
        read_replay(folder)
    assert name.split("/")[0] in str(caught)


def test_local_models_are_hashed_with_weights_and_settings(
    spec: AnySpec, tiny_llama: Path, tiny_lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, adapter = copy_model(tiny_llama, tmp_path / "model"), copy_model(tiny_lora, tmp_path / "adapter")
    data = spec.model_dump(mode="json")
    data["pool"] |= {"base": str(model), "experts": [{"model": f"{model}+{adapter}"}], "generator": str(adapter)}
    spec = any_spec_from_dict(data)
    assert named_models(spec) == [str(model), str(adapter)]
    models = [{"model": str(model)}, {"model": f"{model}+{adapter}"}]
    compared = any_spec_from_dict({"models": models, "evaluation": {"prompts": "p.jsonl"}})
    assert named_models(compared) == named_models(spec)
    for whole_bytes in (1 << 20, 100):
        monkeypatch.setattr(input_files, "_WHOLE_BYTES", whole_bytes)
        monkeypatch.setattr(input_files, "_SAMPLE_BYTES", 64)
        for path in (model / "model.safetensors", model / "config.json", adapter / "adapter_model.safetensors"):
            hashes, kept = hash_inputs(spec), path.read_bytes()
            path.write_bytes(bytes(byte ^ 1 for byte in kept))
            with raises(RunError, "input-changed"):
                refuse_changed_inputs(spec, hashes)
            path.write_bytes(kept)
            refuse_changed_inputs(spec, hashes)


def measured_merge(weight: float) -> ModelMeasured:
    recipe = Recipe(method="task_arithmetic", base="org/a", experts=("org/b",), weights=(weight,))
    return ModelMeasured(result=ModelResult(name="evomm", role="merged", recipe=recipe.model_dump(mode="json")))


def test_a_resumed_run_refuses_another_merge_to_start_from(spec: AnySpec, settings: Settings) -> None:
    earlier = write_run(settings.runs / "earlier", [RunStarted(spec=spec.model_dump(mode="json")), measured_merge(0.5)])
    started_from = spec.model_dump(mode="json") | {"search": {"optimizer": "gradient", "start": str(earlier)}}
    new = any_spec_from_dict(started_from)
    recorded = hash_inputs(new)
    assert recorded.keys() - hash_inputs(spec).keys() == {str(earlier)}
    log = (RunFolder(earlier)).events_path
    log.write_text(log.read_text() + Failed(message="later").model_dump_json() + "\n")
    refuse_changed_inputs(new, recorded)  # only the merge counts
    log.write_text(log.read_text().replace("0.5", "0.6"))
    with raises(RunError, "input-changed") as caught:
        refuse_changed_inputs(new, recorded)
    assert "earlier" in str(caught)
    log.unlink()
    with raises(RunError, "input-changed"):
        refuse_changed_inputs(new, recorded)


@pytest.mark.parametrize("start", ["plain", "cocktail"])
def test_starts_that_are_no_folder_are_not_hashed(spec: AnySpec, start: str) -> None:
    values = spec.model_dump(mode="json") | {"search": {"optimizer": "gradient", "start": start}}
    assert hash_inputs(any_spec_from_dict(values)) == hash_inputs(spec)


def test_logs_of_older_versions_have_no_hashes(spec: AnySpec) -> None:
    refuse_changed_inputs(spec, {})


def test_names_of_datasets_are_no_files(spec: AnySpec) -> None:
    data = spec.model_dump(mode="json")
    data["evaluation"] |= {"prompts": "beavertails", "benign": None}
    assert not any("beavertails" in path for path in hash_inputs(any_spec_from_dict(data)))
