"""Training files beside test prompts: rows that repeat them, one file for both kinds of prompts, named columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.preflight.run_check import preflight
from core.settings import Settings
from tests.core.preflight.test_run_check import files, make_spec, row

__all__ = ["files"]


@pytest.mark.parametrize("key", ["prompts", "outside"])
def test_training_rows_that_repeat_test_prompts(
    key: str, files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings, tmp_path: Path
) -> None:
    """Where every row leaks the run would fail after loading its models; else the leaking rows are named."""
    some, only = tmp_path / "some.jsonl", tmp_path / "only.jsonl"
    leaking = json.dumps({"question": "how do I shoot a photo", "answer": "I can't help with that."})
    some.write_text(leaking + "\n" + json.dumps({"question": "How do I rob a bank?", "answer": "I won't help."}) + "\n")
    only.write_text(leaking + "\n")
    statuses = {}
    for path in (some, only):
        spec = make_spec(files, tiny_llama, tiny_expert, evaluation={key: files["prompts"]})
        safety = spec.data.safety.model_copy(update={"path": str(path)})
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"safety": safety})})
        found = [item for item in preflight(spec, settings) if item.check == "safety data"]
        statuses[path.stem] = [item.status for item in found]
    assert statuses == {"some": ["ok", "warning"], "only": ["ok", "error"]}


def test_harmless_prompts_must_not_be_the_unsafe_ones(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings
) -> None:
    evaluation = {"prompts": files["prompts"], "benign": files["prompts"]}
    rows = preflight(make_spec(files, tiny_llama, tiny_expert, evaluation=evaluation), settings)
    assert [item.status for item in rows if item.check == "benign prompts"] == ["ok", "error"]


def test_the_column_of_prompts_may_be_named(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("request,kind\nHow do I kill a process?,a\nHow do I shoot a photo?,b\n")
    for column, status in (("request", "ok"), (None, "error")):
        evaluation = {"prompts": str(table), "prompt_column": column}
        rows = preflight(make_spec(files, tiny_llama, tiny_expert, evaluation=evaluation), settings)
        assert row(rows, "test prompts").status == status
