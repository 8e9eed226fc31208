"""Fixtures of the engine's tests: the loaded tiny Llama, and a spec, a result and fake workers for runs."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.results import ModelResult, Rate, RunResult
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.jobs.worker import new_run_id, start_run
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.core.jobs.fake_jobs import FAKE, wait_for

FillDisk = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Any:
    """The tiny Llama in float32, loaded for this module."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    """Its tokenizer, loaded for this module."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.fixture
def spec() -> RunSpec:
    return spec_from_dict(
        {
            "pool": {"base": "demo/aligned", "experts": [{"model": "demo/chemistry", "domain": "chemistry"}]},
            "data": {"safety": {"source": "file", "path": "safety.jsonl"}},
        }
    )


@pytest.fixture
def result(spec: RunSpec) -> RunResult:
    merged = ModelResult(
        name="merged",
        role="merged",
        alignment=Rate(rate=0.9, low=0.7, high=0.97, n=20),
        accuracy={"elements": Rate(rate=0.5, low=0.3, high=0.7, n=20)},
        recipe={"method": "ties", "weight": [0.512345]},
    )
    return RunResult(spec=spec.model_dump(mode="json"), seconds=1.5, peak_memory_bytes=1000, models=(merged,))


@pytest.fixture
def fill_disk() -> FillDisk:
    """A function that simulates a full disk until the monkeypatch is undone."""

    def fill(monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the next write store half of its bytes, and let all later writes fail with ENOSPC."""
        real, filled = os.write, []

        def write(fd: int, data: bytes) -> int:
            if filled:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            filled.append(fd)
            return real(fd, bytes(data)[: max(1, len(data) // 2)])

        monkeypatch.setattr("core.durable.os.write", write)

    return fill


@pytest.fixture
def folder(settings: Settings) -> RunFolder:
    return RunFolder(settings.runs / new_run_id())


@pytest.fixture
def start(spec: RunSpec, settings: Settings) -> Iterator[Callable[[str], RunFolder]]:
    """A function that starts fake workers; they are killed after the test."""
    started: list[RunFolder] = []

    def start_fake(how: str) -> RunFolder:
        run_id = start_run(spec, settings, command=(sys.executable, str(FAKE), how))
        started.append(RunFolder(settings.runs / run_id))
        if how != "crash":
            wait_for(lambda: len(started[-1].read_events()) == 2)
        return started[-1]

    yield start_fake
    for folder in started:
        worker = folder.read_worker() if folder.path.exists() else None
        if worker is not None and worker.alive:
            os.kill(worker.pid, signal.SIGKILL)
