"""Fixtures: the command line called as a function, isolated settings, and a job that needs no model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.contracts.events import Event
from core.contracts.run_spec import spec_from_dict
from core.settings import Settings
from tests.tiny_models import save_tiny_llama

SPEC = {
    "pool": {"base": "demo/aligned", "experts": [{"model": "demo/chemistry"}]},
    "data": {"safety": {"source": "file", "path": "safety.jsonl"}},
}


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands read their settings from the environment: point it at this test's folders."""
    monkeypatch.setenv("SAFEMERGE_HOME", str(settings.home))
    monkeypatch.setenv("SAFEMERGE_RUNS", str(settings.runs))
    monkeypatch.delenv("SPACE_ID", raising=False)


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(spec_from_dict(SPEC).to_yaml())
    return path


@pytest.fixture
def set_job(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Iterator[Event]]], None]:
    """Replaces the real job by one that yields the given events."""

    def set_events(events: Callable[[], Iterator[Event]]) -> None:
        monkeypatch.setitem(sys.modules, "core.jobs.merge_job", SimpleNamespace(run_job=lambda *_: events()))

    return set_events


@pytest.fixture(scope="session")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with an untied output layer, so that it does not only repeat its input."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "talkative", tie_word_embeddings=False)
