"""`pool.dtype` and a comparison's `dtype`: the format of models and guards, and its place in the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.contracts.comparison_spec import ComparisonSpec, any_spec_from_dict
from core.contracts.events import ModelMeasured, PoolLoaded
from core.jobs.comparison_job import run_comparison
from core.jobs.merge_job import run_job
from core.models.loading import load_model
from core.models.references import parse_reference
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.guard_models import save_guard
from tests.number_format import pin_number_format
from tests.tiny_runs import Files, models_of, never, spec_of

FORMATS = [("auto", "float32"), ("bfloat16", "bfloat16"), ("float32", "float32")]


@pytest.fixture(autouse=True)
def float32_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    pin_number_format(monkeypatch, "float32")


@pytest.mark.parametrize(("requested", "name"), FORMATS)
def test_a_run_loads_its_pool_in_the_format_of_the_spec(
    requested: str, name: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    search = {"steps": 1, "compare": [], "method": "linear"}
    spec = spec_of(tiny_llama, tiny_expert, files, search=search, pool={"dtype": requested}, export={"folder": False})
    events = list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    (loaded,) = [event for event in events if isinstance(event, PoolLoaded)]
    assert loaded.dtype == name and loaded.dtype_reason
    # Weights are hashed in the format that they are saved in, which is the models' own.
    assert models_of(events)[str(tiny_llama)].sha256 == _sha256(tiny_llama, "bfloat16", settings)


@pytest.mark.parametrize(("requested", "name"), FORMATS)
def test_a_comparison_measures_models_and_guards_in_the_format_of_the_spec(
    requested: str,
    name: str,
    tiny_llama: Path,
    tmp_path: Path,
    files: Files,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guard = save_guard(tmp_path / "Llama-Guard-tiny", "llama-guard", ["safe"])
    formats: list[torch.dtype] = []

    def counted(reference: Any, settings: Settings, dtype: torch.dtype, *rest: Any) -> Any:
        formats.append(dtype)
        return load_model(reference, settings, dtype, *rest)

    monkeypatch.setattr("core.models.loading.load_model", counted)
    evaluation = {"prompts": files.prompts, "reply_tokens": 8, "fluency": False}
    spec = any_spec_from_dict(
        {"models": [{"model": str(tiny_llama)}], "guard": str(guard), "dtype": requested, "evaluation": evaluation}
    )
    assert isinstance(spec, ComparisonSpec)
    folder = RunFolder(settings.runs / "comparison")
    folder.create()
    events = list(run_comparison(spec, settings, folder, never))
    (loaded,) = [event for event in events if isinstance(event, PoolLoaded)]
    (measured,) = [event for event in events if isinstance(event, ModelMeasured)]
    assert loaded.dtype == name and loaded.dtype_reason
    assert measured.result.sha256 == _sha256(tiny_llama, name, settings)
    assert formats == [getattr(torch, name)], "the guard's"


def _sha256(folder: Path, name: str, settings: Settings) -> str:
    from core.models.fingerprint import sha256_of_model

    return sha256_of_model(load_model(parse_reference(str(folder), settings), settings, getattr(torch, name)))
