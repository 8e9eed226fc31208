"""Whole runs whose safety questions come from a dataset, and what the next run need not generate again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.data.samples import FALLBACK, read_samples
from core.errors import ModelError, RunError
from core.events import Finished, PhaseStarted, PreflightDone, SampleSeen
from core.models import generation
from core.runs.data_making import DataMaking
from core.runs.folder import RunFolder
from core.runs.job import run_job
from core.runs.past import Past
from core.settings import Settings
from core.specs import RunSpec
from tests.core.data.test_sources import BEAVERTAILS, publish
from tests.core.runs.tiny_runs import SAFETY, Files, never, spec_of
from tests.hub_server import HubServer

ROWS = [BEAVERTAILS[0] | {"prompt": question} for question in SAFETY]


def dataset_spec(tiny_llama: Path, tiny_expert: Path, files: Files, **keys: Any) -> RunSpec:
    safety = {"source": "dataset", "path": "beavertails", "k": 4, "fallback_refusals": True} | keys
    return spec_of(
        tiny_llama,
        tiny_expert,
        files,
        data={"safety": safety},
        search={"steps": 1, "seed": 3, "compare": []},
        export={"folder": False},
    )


def test_a_run_on_a_dataset_asks_the_pool_and_keeps_where_rows_are_from(
    dataset_hub: HubServer,
    tiny_llama: Path,
    tiny_expert: Path,
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sha = publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_train": ROWS})
    spec = dataset_spec(tiny_llama, tiny_expert, Files(tmp_path))
    folder = RunFolder(tmp_path / "one")
    events = list(run_job(spec, settings, folder, never))
    assert isinstance(events[-1], Finished)
    [checks] = [event.rows for event in events if isinstance(event, PreflightDone)]
    assert any(row.check == "safety data" and "questions for the pool" in row.detail for row in checks)
    samples = read_samples(folder.data_path("safety"))
    assert [sample.question for sample in samples] == list(SAFETY)
    assert {(sample.answered_by, sample.provenance, sample.guard) for sample in samples} == {
        (FALLBACK, "dataset", "phrases")
    }, "the tiny models never refuse"
    assert samples[0].source == f"PKU-Alignment/BeaverTails@{sha}/30k_train#1"
    assert [verdict.model for verdict in samples[0].verdicts] == [str(tiny_llama), str(tiny_expert)]

    def refuse_to_write(*_args: Any, **_options: Any) -> None:
        raise AssertionError("a reply was written again")

    monkeypatch.setattr(generation, "_decode_batch", refuse_to_write)
    again = list(run_job(spec, settings, RunFolder(tmp_path / "two"), never))
    assert isinstance(again[-1], Finished)
    assert read_samples(tmp_path / "two" / "data" / "safety.jsonl") == samples
    with pytest.raises(AssertionError, match="written again"):
        list(run_job(spec, replace(settings, reply_cache_bytes=0), RunFolder(tmp_path / "three"), never))


def test_a_gated_dataset_stops_the_run_before_anything_is_loaded(
    dataset_hub: HubServer, tiny_llama: Path, tiny_expert: Path, tmp_path: Path, settings: Settings
) -> None:
    publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_train": ROWS}, gated=True)
    spec = dataset_spec(tiny_llama, tiny_expert, Files(tmp_path))
    events = []
    with pytest.raises(ModelError, match="is gated"):
        events.extend(run_job(spec, settings, RunFolder(tmp_path / "run"), never))
    assert not [event for event in events if isinstance(event, PhaseStarted) and event.phase == "loading"]


def test_a_dataset_that_changed_since_the_run_began_is_named(
    dataset_hub: HubServer, tiny_llama: Path, tiny_expert: Path, tmp_path: Path, settings: Settings
) -> None:
    publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_train": ROWS})
    spec = dataset_spec(tiny_llama, tiny_expert, Files(tmp_path))
    row = SampleSeen(dataset="safety", question=SAFETY[0], kept=True, source="PKU-Alignment/BeaverTails@old/x#1")
    pool: Any = None
    guard: Any = None
    making = DataMaking(spec, settings, pool, guard, (), never, Past((row,)))
    with pytest.raises(RunError, match="not what this run began with"):
        list(making.safety())
