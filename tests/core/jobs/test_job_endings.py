"""Runs that do not finish: stopped in each phase, a full disk, unusable data or models."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, MistralConfig, MistralForCausalLM

from core.contracts.events import (
    CandidateScored,
    DataReady,
    Event,
    Exported,
    ModelMeasured,
    PhaseStarted,
    PreflightDone,
)
from core.data import question_rounds as writing
from core.errors import DataError, ModelError, RunCancelled, RunError
from core.jobs.data_step import DataStep
from core.jobs.merge_job import run_job
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.core.data.fake_models import Writer
from tests.raising import raises
from tests.tiny_models import VOCABULARY, save_tiny_llama, tiny_tokenizer
from tests.tiny_runs import PHASES, Files, files_in, never, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_ends_the_run_within_its_phase(
    phase: str, tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    asked = False
    seen: list[Event] = []
    folder = RunFolder(settings.runs / "run")
    events = run_job(spec_of(tiny_llama, tiny_expert, files), settings, folder, lambda: asked)
    with pytest.raises(RunCancelled):
        for event in events:
            seen.append(event)
            asked = asked or (isinstance(event, PhaseStarted) and event.phase == phase)
    assert [event.phase for event in seen if isinstance(event, PhaseStarted)][-1] == phase
    after = seen[[isinstance(e, PhaseStarted) and e.phase == phase for e in seen].index(True) + 1 :]
    assert not any(isinstance(event, ModelMeasured | CandidateScored | DataReady | Exported) for event in after)
    expected = {"data/safety.jsonl", "data/domain.jsonl"} if PHASES.index(phase) > PHASES.index("data") else set()
    unfinished = {name for name in files_in(settings.runs) if not name.startswith("run/baselines/")}
    assert unfinished == {f"run/{name}" for name in expected}


def test_a_stop_while_a_merge_is_measured_saves_nothing(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    seen: list[Event] = []

    def merge_measured() -> bool:
        return any(isinstance(event, ModelMeasured) and event.result.role == "merged" for event in seen)

    folder = RunFolder(settings.runs / "run")
    spec = spec_of(tiny_llama, tiny_expert, files, search={"steps": 1, "compare": []})
    with pytest.raises(RunCancelled):
        seen.extend(run_job(spec, settings, folder, merge_measured))
    assert not folder.merged_path.exists()


def test_a_disk_that_fills_up_while_saving_leaves_no_half_model(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(self: Any, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", half_written)
    spec = spec_of(tiny_llama, tiny_expert, files, search={"steps": 1, "compare": ["equal"]})
    with raises(RunError, "not-saved"):
        list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    assert files_in(settings.runs) == {"run/data/safety.jsonl", "run/data/domain.jsonl"}
    assert not list(settings.runs.rglob("*.partial"))


GENERATED = {"safety": {"source": "generate", "k": 4}, "domain": {"source": "file", "path": "?"}, "reply_tokens": 8}


def run_generating(base: Path, expert: Path, files: Files, settings: Settings) -> list[Event]:
    pool = {"base": str(base), "experts": [{"model": str(expert)}], "generator": str(expert)}
    data = {**GENERATED, "domain": {"source": "file", "path": files.domain, "k": 3}}
    spec = spec_of(base, expert, files, pool=pool, data=data)
    return list(run_job(spec, settings, RunFolder(settings.runs / "run"), never))


def test_a_generator_that_writes_no_questions_is_reported_with_counts_and_advice(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "QUESTION_TOKENS", 8)
    with pytest.raises(DataError, match=r"0 of 4 .*: \d+") as caught:
        run_generating(tiny_llama, tiny_expert, files, settings)
    assert "data.safety" in caught.value.hint
    assert files_in(settings.runs) == set()


def test_a_pool_in_which_no_model_refuses_is_reported_with_counts_and_advice(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataStep, "_generator", lambda *_: Writer())
    with pytest.raises(DataError, match=r"0 of 4 .*: \d+") as caught:
        run_generating(tiny_llama, tiny_expert, files, settings)
    assert caught.value.hint


def wider(folder: Path) -> Path:
    return save_tiny_llama(folder, hidden_size=48)


def mistral(folder: Path) -> Path:
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    MistralForCausalLM(config).bfloat16().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (wider, "tensors equal base"),
        (mistral, "architecture equals base"),
    ],
)
def test_models_that_cannot_be_merged_are_refused_before_loading(
    make: Callable[[Path], Path], check: str, tiny_llama: Path, files: Files, settings: Settings, tmp_path: Path
) -> None:
    spec = spec_of(tiny_llama, make(tmp_path / "other"), files)
    seen: list[Event] = []
    with pytest.raises(ModelError, match=check):
        seen.extend(run_job(spec, settings, RunFolder(settings.runs / "run"), never))
    (table,) = [event for event in seen if isinstance(event, PreflightDone)]
    errors = [row.check for row in table.rows if row.status == "error" and row.model == str(tmp_path / "other")]
    assert check in errors
    assert not any(isinstance(event, PhaseStarted) and event.phase == "loading" for event in seen)
