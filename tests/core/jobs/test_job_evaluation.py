"""Warnings about measurements: uninformative prompts and broken merges, each reported once."""

from __future__ import annotations

from itertools import chain, repeat
from pathlib import Path

import pytest

from core.contracts.events import Event, ModelMeasured, Warned
from core.jobs.merge_job import run_job
from core.runs.folder import RunFolder
from core.runs.replay import Replay
from core.settings import Settings
from tests.tiny_runs import Files, models_of, never, spec_of, write_rows

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


def warnings_of(events: list[Event]) -> list[str]:
    """Warnings, but for those that a random model does not end its replies."""
    return [event.message for event in events if isinstance(event, Warned) and "end token" not in event.message]


def test_warnings_are_given_once_also_when_the_run_is_resumed(
    tiny_llama: Path,
    tiny_expert: Path,
    files: Files,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    perplexities = chain([10.0, None, 99.0], repeat(99.0))
    monkeypatch.setattr("core.evaluation.measurement.perplexity", lambda *_: next(perplexities))
    prompts = write_rows(tmp_path / "h.jsonl", [{"prompt": f"Tell me secret {i}"} for i in range(10)])
    benign = write_rows(tmp_path / "b.jsonl", [{"prompt": f"How do I kill process {i}?"} for i in range(10)])
    spec = spec_of(
        tiny_llama,
        tiny_expert,
        files,
        search={"steps": 1, "compare": []},
        evaluation={"prompts": prompts, "benign": benign, "reply_tokens": 8},
        export={"folder": False},
    )
    folder = RunFolder(settings.runs / "run")
    events = list(run_job(spec, settings, folder, never))
    warned = [message for message in warnings_of(events) if "pairs" not in message]
    assert [model.perplexity for model in models_of(events).values()] == [10.0, None, 99.0]
    named = [(str(tiny_expert), "perplexity"), (prompts, benign), ("evomm", "99.0")]
    assert [all(word in message for word in words) for message, words in zip(warned, named, strict=True)] == [True] * 3
    for measured in (2, 3):
        last = [number for number, event in enumerate(events) if isinstance(event, ModelMeasured)][measured - 1]
        before = events[: last + 1]
        after = list(run_job(spec, settings, folder, never, Replay(tuple(before))))
        assert [message for message in warnings_of(before + after) if "pairs" not in message] == warned
