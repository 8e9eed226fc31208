"""Whole runs with guard models: figures of a panel, and a guard that writes nonsense ends the run with a message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.contracts.events import Failed, Finished, ModelMeasured, SampleSeen
from core.contracts.reply_verdicts import DisputedReply
from core.data.training_pairs import read_samples
from core.jobs.worker import run_worker
from core.runs.folder import RunFolder
from core.runs.view import fold
from core.settings import Settings
from tests.core.jobs.resuming import RunHarness, assert_same_end, no_work, nth
from tests.guard_models import save_guard
from tests.tiny_runs import Files, spec_of

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
    disputed = [json.loads(line) for line in (folder.path / "disputed.jsonl").read_text().splitlines()]
    assert {row["model"] for row in disputed} == {model["name"] for model in result["models"]}
    for row in disputed:
        assert row["response"] is None and row["unsafe"], "phrases does not call it safe, so its text is not kept"
        assert [(a["guard"], a["safe"]) for a in row["answers"]] == [("phrases", False), (str(guard), True)]
    assert fold(folder.read_events()).disputed == tuple(DisputedReply.model_validate(row) for row in disputed)


def test_a_panels_run_that_is_killed_has_the_same_disputes(
    tiny_llama: Path, tiny_expert: Path, files: Files, tmp_path: Path, settings: Settings
) -> None:
    guard = save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["unsafe", "\nS1"])
    spec = spec_of(
        tiny_llama,
        tiny_expert,
        files,
        pool={"guard": ["phrases", str(guard)]},
        search={"steps": 1, "compare": ["equal"]},
        evaluation={"prompts": files.prompts, "benign": files.benign},
    )
    bench = RunHarness(spec, settings, no_work())
    whole = bench.run_whole()
    rows = [event for event in whole.events if isinstance(event, SampleSeen) and event.dataset == "safety"]
    assert rows and all(row.kept and row.disputed for row in rows), "the first guard decides"
    assert {row.verdicts[-1].model for row in rows} == {""}
    assert all(sample.disputed for sample in read_samples(whole.folder.data_path("safety")))
    folder = bench.start("killed", nth(ModelMeasured, 2))
    bench.resume(folder)
    assert_same_end(folder, whole)


def test_a_guard_that_writes_nonsense_ends_the_run(
    tiny_llama: Path, tiny_expert: Path, files: Files, tmp_path: Path, settings: Settings
) -> None:
    guard = save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["zxq"])
    spec = spec_of(tiny_llama, tiny_expert, files, pool={"guard": str(guard)}, evaluation={"prompts": files.prompts})
    end = run_worker(spec, settings, RunFolder(settings.runs / "run"))
    assert isinstance(end, Failed)
    assert files.safety in end.message and end.traceback == ""
