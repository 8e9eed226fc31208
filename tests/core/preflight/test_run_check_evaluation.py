"""Preflight rows for lm-eval tasks and for test prompts that are on the Hub."""

from __future__ import annotations

from pathlib import Path

from core.preflight.run_check import preflight
from core.settings import Settings
from tests.core.data.test_opened_source import publish
from tests.hub_server import HubServer
from tests.tiny_runs import Files, spec_of


def test_tasks_and_prompts_of_the_hub_are_looked_up(
    tiny_llama: Path, tiny_expert: Path, dataset_hub: HubServer, settings: Settings, tmp_path: Path
) -> None:
    sha = publish(dataset_hub, tmp_path / "d", "o/prompts", {"test": [{"prompt": "One?"}, {"prompt": "Two?"}]})
    evaluation = {"tasks": ["demo_chemistry"], "prompts": "o/prompts:test", "benign": "o/prompts:dev"}
    spec = spec_of(tiny_llama, tiny_expert, Files(tmp_path), evaluation=evaluation)
    rows = {row.check: row for row in preflight(spec, settings)}
    assert (rows["accuracy tasks"].status, rows["accuracy tasks"].detail) == ("ok", "demo_chemistry")
    assert rows["test prompts"].status == "ok" and f"o/prompts@{sha}/test" in rows["test prompts"].detail
    assert rows["benign prompts"].status == "error" and "'dev'" in rows["benign prompts"].detail
    missing = evaluation | {"include_path": str(tmp_path / "none")}
    spec = spec_of(tiny_llama, tiny_expert, Files(tmp_path), evaluation=missing)
    (found,) = [row for row in preflight(spec, settings) if row.check == "accuracy tasks"]
    assert found.status == "error" and str(tmp_path / "none") in found.detail
