"""A model's file that changes while a run is at work: the run computes with the weights that it has loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.faults.folder_checks import differences, ending_of
from core.contracts.events import Event, Finished, PhaseStarted
from core.jobs.worker import run_worker
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.tiny_models import copy_model
from tests.tiny_runs import Files, spec_of


@pytest.mark.parametrize("memory", ["resident", "compact", "streamed"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_file_that_changes_during_a_run_changes_nothing(
    memory: str, dtype: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    base, expert = copy_model(tiny_llama, tmp_path / "base"), copy_model(tiny_expert, tmp_path / "expert")
    weights = [folder / "model.safetensors" for folder in (base, expert)]
    kept = [path.read_bytes() for path in weights]
    pool = {"base": str(base), "experts": [{"model": str(expert), "domain": "poetry"}], "dtype": dtype}
    spec = spec_of(base, expert, files, pool=pool | {"memory": memory}, search={"steps": 4, "compare": []})
    whole, disturbed = RunFolder(settings.runs / "whole"), RunFolder(settings.runs / "disturbed")
    assert isinstance(run_worker(spec, settings, whole), Finished)

    def overwrite(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "search":
            for path in weights:
                with path.open("r+b") as file:
                    file.seek(path.stat().st_size // 2)
                    file.write(b"\x11\x3c" * (path.stat().st_size // 4))
        if isinstance(event, PhaseStarted) and event.phase == "evaluation":
            for path in weights:
                os.truncate(path, 3000)

    end = run_worker(spec, settings, disturbed, on_event=overwrite)
    for path, content in zip(weights, kept, strict=True):
        path.write_bytes(content)
    assert isinstance(end, Finished), end
    assert differences(ending_of(disturbed), ending_of(whole)) == []
