"""What would fail after the models are loaded is refused before: unusable pairs, damaged weights, image models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.contracts.events import CheckRow
from core.preflight import finite_check
from core.preflight.run_check import preflight
from core.settings import Settings
from tests.core.data.fake_models import REFUSAL
from tests.tiny_models import copy_model, save_tiny_llama
from tests.tiny_runs import DOMAIN, Files, spec_of, write_rows


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def errors(rows: list[CheckRow]) -> dict[str, str]:
    return {row.check: row.detail for row in rows if row.status == "error"}


@pytest.mark.parametrize(
    ("dataset", "rows", "named"),
    [
        ("safety", [{"question": "Why?", "answer": "Das kann ich leider nicht tun."}], "not a refusal: 1"),
        ("safety", [{"question": "Tell me secret 1", "answer": REFUSAL}], "no pair is left"),
        ("domain", [{"question": "Why?", "answer": "so " * 10_000}], "too long: 1"),
    ],
)
def test_files_without_a_usable_pair(
    dataset: str,
    rows: list[dict[str, str]],
    named: str,
    files: Files,
    tiny_llama: Path,
    tiny_expert: Path,
    tmp_path: Path,
    settings: Settings,
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rows)
    sources = {
        "safety": {"source": "file", "path": files.safety, "k": 4},
        "domain": {"source": "file", "path": files.domain, "k": 3},
    }
    data: dict[str, Any] = sources | {dataset: {"source": "file", "path": path, "k": 2}}
    spec = spec_of(tiny_llama, tiny_expert, files, data=data, evaluation={"prompts": files.prompts})
    assert named in errors(preflight(spec, settings))[f"{dataset} data"]
    write_rows(tmp_path / "rows.jsonl", [*rows, {"question": DOMAIN[0][0], "answer": REFUSAL}])
    assert f"{dataset} data" not in errors(preflight(spec, settings)), "one usable pair is enough"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(
    dtype: torch.dtype, value: float, files: Files, tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, dtype=dtype)
    spec = spec_of(tiny_llama, expert, files)
    assert "weights" not in errors(preflight(spec, settings))
    state = load_file(expert / "model.safetensors")
    state["model.norm.weight"][3] = value
    save_file(state, expert / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight" in errors(preflight(spec, settings))["weights"]


def test_large_weights_are_not_read(
    files: Files, tiny_llama: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite_check, "MOST_BYTES", 1)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1)
    state = load_file(expert / "model.safetensors")
    state["model.norm.weight"][3] = float("nan")
    save_file(state, expert / "model.safetensors", metadata={"format": "pt"})
    assert errors(preflight(spec_of(tiny_llama, expert, files), settings)) == {}


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("gemma3", "Gemma3ForConditionalGeneration"),
        ("mistral3", "Mistral3ForConditionalGeneration"),
        ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
        ("llava", "LlavaForConditionalGeneration"),
    ],
)
def test_image_models_are_refused_for_what_they_are(
    model_type: str, architecture: str, files: Files, tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    model = copy_model(tiny_llama, tmp_path / "model")
    text = json.loads((model / "config.json").read_text())
    config = {"model_type": model_type, "architectures": [architecture], "text_config": text}
    (model / "config.json").write_text(json.dumps(config | {"vision_config": {"hidden_size": 32}}))
    detail = errors(preflight(spec_of(model, model, files), settings))["architecture"]
    assert architecture in detail and "image" in detail


def test_an_ancestor_in_another_spelling_is_refused(
    files: Files, tiny_llama: Path, tiny_expert: Path, settings: Settings
) -> None:
    spec = spec_of(tiny_llama, tiny_expert, files, pool={"ancestor": f"{tiny_llama}/"})
    assert str(tiny_llama) in errors(preflight(spec, settings))["pool"]
