"""Marks recognize one process of one host; the machine's lock has one holder and ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import RunError
from core.runs import host
from core.runs.host import this_host
from core.runs.process import ProcessMark, acquire_lock, inherit_lock, mark_process, mark_started
from core.settings import REPOSITORY, machine_name
from tests.raising import raises


def test_this_process_is_alive_and_another_with_its_number_is_not() -> None:
    mark = mark_process(os.getpid())
    assert mark is not None
    assert mark.alive
    assert not ProcessMark(mark.pid, "another start").alive


def test_a_mark_of_an_older_version_is_judged_by_its_process_alone() -> None:
    mark = mark_started(os.getpid())
    assert ProcessMark(mark.pid, mark.start).state == "alive"
    assert ProcessMark(mark.pid, "another start").state == "gone"


@pytest.mark.parametrize("field", ["host", "boot", "pid_namespace"])
def test_the_state_of_a_process_on_another_host_or_in_another_container_is_unknown(field: str) -> None:
    mark = replace(mark_started(os.getpid()), machine="", **{field: "another"})
    assert (mark.state, mark.alive) == ("unknown", False)
    assert replace(mark, start="another start").state == "unknown"


def test_a_process_of_this_machine_before_its_restart_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    here = this_host()._replace(machine="an installed system")
    monkeypatch.setattr(host, "this_host", lambda: here)
    mark = ProcessMark(os.getpid(), mark_started(os.getpid()).start, *here)
    assert mark.state == "alive"
    assert replace(mark, boot="earlier").state == "gone"
    assert replace(mark, boot="earlier", machine="another system").state == "unknown"


def test_a_process_of_a_spaces_earlier_container_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_name({"SPACE_ID": "lab/merge"}) == "space:lab/merge"
    here = this_host()._replace(name="space:lab/merge", machine="")
    monkeypatch.setattr(host, "this_host", lambda: here)
    mark = ProcessMark(os.getpid(), mark_started(os.getpid()).start, *here)
    assert replace(mark, boot="another node", pid_namespace="another").state == "gone"
    assert replace(mark, host="space:lab/other", boot="another node").state == "unknown"


def test_a_viewer_in_another_container_sees_no_state() -> None:
    """The same process, looked at from its own PID namespace, as a container has it."""
    mark = mark_started(os.getpid())
    look = (
        "import sys; from core.runs.process import ProcessMark; "
        "print(ProcessMark(int(sys.argv[1]), *sys.argv[2:]).state)"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", look, *map(str, vars(mark).values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if done.returncode != 0 and "unshare" in done.stderr:
        pytest.skip(f"no PID namespaces here: {done.stderr.strip()}")
    assert done.stdout == "unknown\n", done.stderr


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


def test_a_second_job_is_refused_and_the_first_one_named(tmp_path: Path) -> None:
    with (
        acquire_lock(tmp_path / "runs", Path("/x/20250101-run")),
        raises(RunError, "machine-busy") as caught,
    ):
        acquire_lock(tmp_path / "runs", Path("/x/second"))
    assert "20250101-run" in caught.value.message
    acquire_lock(tmp_path / "runs", Path("/x/second")).release()


def test_a_started_process_keeps_the_lock_until_it_is_killed(tmp_path: Path) -> None:
    with acquire_lock(tmp_path, Path("/x/first")) as lock:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.fd,))
    with raises(RunError, "machine-busy"):
        acquire_lock(tmp_path, Path("/x/second"))
    child.kill()
    child.communicate()
    acquire_lock(tmp_path, Path("/x/second")).release()


def test_a_runs_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises(RunError, "runs-not-writable"):
        acquire_lock(tmp_path / "file" / "runs", Path("/x"))


def test_a_lock_that_is_not_open_is_refused() -> None:
    with raises(RunError, "no-lock"):
        inherit_lock(999_999)
