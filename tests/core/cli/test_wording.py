"""The wording of messages about runs and machines that users meet at the command line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from core.contracts.events import RunStarted
from core.contracts.run_spec import load_spec
from core.errors import RunError, UnsupportedPlatform, require_posix
from core.jobs.worker import resume_worker
from core.runs.folder import RunFolder
from core.runs.process import acquire_lock, mark_started
from core.settings import Settings


def test_a_busy_machine(tmp_path: Path) -> None:
    with acquire_lock(tmp_path, Path("/runs/first")), pytest.raises(RunError) as caught:
        acquire_lock(tmp_path, Path("/runs/second"))
    assert caught.value.message == "Another job is at work: /runs/first."
    assert caught.value.hint == "One job runs at a time: wait until it ends, or stop it first."


def test_a_worker_on_another_host(spec_file: Path, settings: Settings, tmp_path: Path) -> None:
    spec = load_spec(spec_file)
    folder = RunFolder(tmp_path / "r")
    folder.create()
    folder.write_spec(spec)
    folder.append_event(RunStarted(spec=spec.model_dump(mode="json")))
    folder.write_worker(replace(mark_started(os.getpid()), host="gpu-7"))
    with pytest.raises(RunError) as caught:
        resume_worker(settings, folder)
    assert caught.value.message == (
        f"The run r belongs to process {os.getpid()} on host gpu-7, whose state cannot be seen from here."
    )
    assert caught.value.hint == (
        f"Follow or stop it on that host. If that host is gone, delete {folder.worker_path} and try again."
    )


def test_windows() -> None:
    with pytest.raises(UnsupportedPlatform) as caught:
        require_posix("win32")
    assert str(caught.value) == (
        "SafeMerge runs on Linux and macOS. On Windows, install WSL (wsl --install) and run it there."
    )
