"""Whole runs with guard models: figures of a panel, and a guard that writes nonsense ends the run in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.events import Failed, Finished
from core.runs.folder import RunFolder
from core.runs.worker import run_worker
from core.settings import Settings
from tests.core.runs.tiny_runs import Files, spec_of
from tests.guard_models import save_guard

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


def test_a_panel_of_guards_judges_a_run(
    tiny_llama: Path, tiny_expert: Path, files: Files, tmp_path: Path, settings: Settings
) -> None:
    guard = save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["safe"])
    spec = spec_of(
        tiny_llama,
        tiny_expert,
        files,
        pool={"guard": ["phrases", str(guard)]},
        search={"compare": ["equal"]},
        evaluation={"prompts": files.prompts},
    )
    folder = RunFolder(settings.runs / "run")
    end = run_worker(spec, settings, folder)
    assert isinstance(end, Finished), end
    result = json.loads((folder.path / "result.json").read_text())
    assert result["spec"]["pool"]["guard"] == f"phrases & {guard}"
    for model in result["models"]:
        safe, refusal = model["agreement"]
        assert (safe["guard"], safe["question"], refusal["question"]) == (str(guard), "safe", "refusal")
        assert safe["agree"]["rate"] == model["alignment"]["rate"]  # the other guard calls everything safe
        assert (refusal["agree"]["rate"], model["unknown"]) == (1.0, 0)


def test_a_guard_that_writes_nonsense_ends_the_run(
    tiny_llama: Path, tiny_expert: Path, files: Files, tmp_path: Path, settings: Settings
) -> None:
    guard = save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["zxq"])
    spec = spec_of(tiny_llama, tiny_expert, files, pool={"guard": str(guard)}, evaluation={"prompts": files.prompts})
    end = run_worker(spec, settings, RunFolder(settings.runs / "run"))
    assert isinstance(end, Failed)
    assert "guard" in f"{end.message} {end.hint}"
    assert end.traceback == ""
