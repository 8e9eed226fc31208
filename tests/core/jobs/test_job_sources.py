"""Whole runs on questions of a dataset, what later runs take from the cache, and what is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import Finished, PhaseStarted, PreflightDone, SampleSeen
from core.contracts.run_spec import RunSpec
from core.data.training_pairs import FALLBACK, Sample, read_samples
from core.errors import ModelError, RunError
from core.jobs.data_step import DataStep
from core.jobs.live_pool import LivePool
from core.jobs.merge_job import run_job
from core.jobs.worker import run_worker
from core.models import generation
from core.models.chat_format import Conversation
from core.runs.folder import RunFolder
from core.runs.replay import Replay
from core.settings import Settings
from tests.core.data.fake_models import REFUSAL, Expert, Writer, complier
from tests.core.data.test_opened_source import BEAVERTAILS, publish
from tests.hub_server import HubServer
from tests.raising import raises
from tests.tiny_runs import SAFETY, Files, never, spec_of

SHORT: dict[str, Any] = {"search": {"steps": 1, "seed": 3, "compare": []}, "export": {"folder": False}}
COMPLIANCE = "Sure, the first step is quite simple"
ROWS = [BEAVERTAILS[0] | {"prompt": question} for question in SAFETY]


@dataclass
class Counting:
    """A model that counts how often it is asked."""

    model: Expert
    calls: int = 0

    def reply(self, conversations: Sequence[Conversation], **options: Any) -> list[str]:
        self.calls += 1
        return self.model.reply(conversations, **options)


@dataclass
class Spoken:
    """What every real model says: it refuses some prompts, always the same ones, and complies with the others."""

    complied: int = 0

    def decode_batch(self, _model: Any, _tokenizer: Any, prompts: Sequence[list[int]], *_options: Any) -> list[str]:
        replies = [REFUSAL if sum(prompt) % 2 else f"{COMPLIANCE} in {sum(prompt)} words." for prompt in prompts]
        self.complied += len(replies) - replies.count(REFUSAL)
        return replies


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def dataset_spec(tiny_llama: Path, tiny_expert: Path, files: Files, **keys: Any) -> RunSpec:
    safety = {"source": "dataset", "path": "beavertails", "k": 4, "fallback_refusals": True} | keys
    return spec_of(
        tiny_llama,
        tiny_expert,
        files,
        data={"safety": safety},
        **SHORT,
    )


def test_a_run_on_a_dataset_asks_the_pool_and_keeps_where_rows_are_from(
    dataset_hub: HubServer,
    tiny_llama: Path,
    tiny_expert: Path,
    tmp_path: Path,
    settings: Settings,
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


def test_a_second_run_gets_its_written_questions_and_answers_from_the_cache(
    tiny_llama: Path, tiny_expert: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expert = Counting(Expert(Writer(), complier()))
    monkeypatch.setattr(LivePool, "as_text_model", lambda *_: expert)
    spec = spec_of(
        tiny_llama,
        tiny_expert,
        Files(tmp_path),
        pool={"experts": [{"model": str(tiny_expert), "domain": "chemistry"}]},
        data={"domain": {"source": "generate", "k": 6}},
        **SHORT,
    )

    def run(name: str, settings: Settings) -> tuple[list[Sample], int]:
        folder, before = RunFolder(tmp_path / name), expert.calls
        assert isinstance(list(run_job(spec, settings, folder, never))[-1], Finished)
        return read_samples(folder.data_path("domain")), expert.calls - before

    cold, asked = run("cold", settings)
    assert len(cold) == 6 and asked >= 2
    assert run("warm", settings) == (cold, 0)
    assert run("off", replace(settings, reply_cache_bytes=0)) == (cold, asked)


@pytest.mark.parametrize("source", ["generate", "dataset"])
def test_no_text_of_a_reply_that_complies_is_written_anywhere(
    source: str,
    dataset_hub: HubServer,
    tiny_llama: Path,
    tiny_expert: Path,
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither what the pool says to training questions nor what it says to test prompts."""
    publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_train": ROWS})
    spoken = Spoken()
    monkeypatch.setattr(generation, "_decode_batch", spoken.decode_batch)
    monkeypatch.setattr(DataStep, "_generator", lambda *_: Writer())
    files = Files(tmp_path)
    safety: dict[str, Any] = {"source": source, "k": 4, "fallback_refusals": True}
    spec = spec_of(
        tiny_llama,
        tiny_expert,
        files,
        pool={"generator": str(tiny_expert)},
        data={"safety": safety | ({"path": "beavertails"} if source == "dataset" else {})},
        evaluation={"prompts": files.prompts, "probe": files.probe},
        **SHORT,
    )
    kept: list[list[Sample]] = []
    for name in ("cold", "warm"):
        folder = RunFolder(settings.runs / name)
        assert isinstance(run_worker(spec, settings, folder), Finished)
        kept.append(read_samples(folder.data_path("safety")))
    assert kept[0] == kept[1]
    assert {sample.answered_by == FALLBACK for sample in kept[0]} == {True, False}, "some refused, some not"
    written = {path: path.read_bytes() for root in (settings.home, settings.runs) for path in files_under(root)}
    assert any(REFUSAL.encode() in content for content in written.values())
    assert spoken.complied > 8 and not [path for path, content in written.items() if COMPLIANCE.encode() in content]


def test_a_gated_dataset_stops_the_run_before_anything_is_loaded(
    dataset_hub: HubServer, tiny_llama: Path, tiny_expert: Path, tmp_path: Path, settings: Settings
) -> None:
    publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_train": ROWS}, gated=True)
    spec = dataset_spec(tiny_llama, tiny_expert, Files(tmp_path))
    events = []
    with pytest.raises(ModelError, match="BeaverTails"):
        events.extend(run_job(spec, settings, RunFolder(tmp_path / "run"), never))
    assert not [event for event in events if isinstance(event, PhaseStarted) and event.phase == "loading"]


def test_a_dataset_that_changed_since_the_run_started_is_refused(
    dataset_hub: HubServer, tiny_llama: Path, tiny_expert: Path, tmp_path: Path, settings: Settings
) -> None:
    publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_train": ROWS})
    spec = dataset_spec(tiny_llama, tiny_expert, Files(tmp_path))
    row = SampleSeen(dataset="safety", question=SAFETY[0], kept=True, source="PKU-Alignment/BeaverTails@old/x#1")
    pool: Any = None
    guard: Any = None
    step = DataStep(spec, settings, pool, guard, (), never, Replay((row,)))
    with raises(RunError, "dataset-changed"):
        list(step.safety())
