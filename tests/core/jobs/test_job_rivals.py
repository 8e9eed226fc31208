"""Whole runs by published methods that mergekit lacks: what was scored is what was saved, and its file says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from core.contracts.events import CandidateScored, Exported
from core.contracts.merge_methods import METHODS, rival_methods
from core.jobs.merge_job import run_job
from core.merging.recipes import Recipe
from core.models.fingerprint import sha256_of_folder
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import Files, models_of, never, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


@pytest.mark.parametrize("method", rival_methods())
def test_scored_weights_are_saved_weights(
    method: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    pool = {}
    if METHODS[method].needs_ancestor:
        pool = {"ancestor": str(save_tiny_llama(tmp_path / "ancestor", nudge_seed=9))}
    search = {"method": method, "steps": 3, "compare": ["equal", "evomm_expert_only"]}
    spec = spec_of(tiny_llama, tiny_expert, files, search=search, pool=pool)
    folder = RunFolder(settings.runs / "run")
    folder.create()
    events = list(run_job(spec, settings, folder, never))
    candidates = [event for event in events if isinstance(event, CandidateScored)]
    assert not any(event.failure for event in candidates)
    assert len({event.objective for event in candidates if event.search == "evomm"}) > 1 or method == "safe_lora"
    (exported,) = [event for event in events if isinstance(event, Exported)]
    models = models_of(events)
    assert exported.sha256 == models["evomm"].sha256 == sha256_of_folder(folder.merged_path)
    published = Recipe.model_validate(models["equal"].recipe)
    assert all(published.number(item.name) == item.default for item in METHODS[method].parameters)
    assert models["equal"].sha256 == sha256_of_folder(folder.path / "baselines" / "equal")
    text = (folder.merged_path / "mergekit_config.yml").read_text(encoding="utf-8")
    written = yaml.safe_load(text)["merge_method"]
    if METHODS[method].adds_models:
        assert written in ("linear", "task_arithmetic", "dare_linear")
    else:
        assert written == method and f"mergekit lacks the method '{method}'" in text
