"""Fixtures for the tests of runs: a spec, a small result, and what whole runs on tiny models need."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

from core.results import ModelResult, Rate, RunResult
from core.runs import live_pool
from core.runs.folder import RunFolder
from core.runs.worker import new_run_id, start_run
from core.settings import Settings
from core.specs import RunSpec, spec_from_dict
from tests.core.runs.fake_jobs import FAKE, wait_for
from tests.core.runs.resuming import Bench, Whole
from tests.core.runs.tiny_runs import Files

FillDisk = Callable[[pytest.MonkeyPatch], None]


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
    """A function that fills the disk until the monkeypatch is undone."""

    def fill(monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on a write puts half of its bytes down and then finds the disk full."""
        real, filled = os.write, []

        def write(fd: int, data: bytes) -> int:
            if filled:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            filled.append(fd)
            return real(fd, bytes(data)[: max(1, len(data) // 2)])

        monkeypatch.setattr("core.runs.durable.os.write", write)

    return fill


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def bfloat16_everywhere() -> Iterator[None]:
    """The number format is measured per machine; the tests need the same on all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_pool, "fast_dtype", lambda _device: torch.bfloat16)
        yield


@pytest.fixture(scope="module")
def whole(bench: Bench) -> Whole:
    """The run of a module's own `bench`, from start to end."""
    return bench.run_whole()


@pytest.fixture
def folder(settings: Settings) -> RunFolder:
    return RunFolder(settings.runs / new_run_id())


@pytest.fixture
def start(spec: RunSpec, settings: Settings) -> Iterator[Callable[[str], RunFolder]]:
    """Starts fake workers that have begun to work, and kills what is left of them."""
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
