"""Marks recognise one process, not its number; the machine's lock has one holder and dies with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import RunError
from core.runs.process import ProcessMark, acquire_lock, inherit_lock, mark_process


def test_this_process_is_alive_and_another_with_its_number_is_not() -> None:
    mark = mark_process(os.getpid())
    assert mark is not None
    assert mark.alive
    assert not ProcessMark(mark.pid, "another start").alive


def test_a_zombie_counts_as_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = mark_process(process.pid)
    assert mark is not None
    assert mark.alive
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not mark.alive
    assert mark_process(process.pid) is None
    process.communicate()
    assert not mark.alive


def test_the_second_comer_hears_which_run_is_at_work(tmp_path: Path) -> None:
    with (
        acquire_lock(tmp_path / "runs", Path("/x/20250101-run")),
        pytest.raises(RunError, match="20250101-run") as caught,
    ):
        acquire_lock(tmp_path / "runs", Path("/x/second"))
    assert "One run at a time" in caught.value.hint
    acquire_lock(tmp_path / "runs", Path("/x/second")).release()


def test_a_started_process_keeps_the_lock_until_it_is_killed(tmp_path: Path) -> None:
    with acquire_lock(tmp_path, Path("/x/first")) as lock:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.fd,))
    with pytest.raises(RunError, match="first"):
        acquire_lock(tmp_path, Path("/x/second"))
    child.kill()
    child.communicate()
    acquire_lock(tmp_path, Path("/x/second")).release()


def test_a_runs_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="runs folder"):
        acquire_lock(tmp_path / "file" / "runs", Path("/x"))


def test_a_lock_that_is_not_open_is_refused() -> None:
    with pytest.raises(RunError, match="no open lock"):
        inherit_lock(999_999)
