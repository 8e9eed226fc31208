"""Runs in a process that may take no more memory from some moment on: each finishes, or says that memory is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.runs.folder import RunFolder
from core.settings import REPOSITORY
from tests.tiny_runs import Files, spec_of

if sys.platform != "linux":
    pytest.skip("limits on memory need Linux", allow_module_level=True)

CHILD = """
import resource, sys
from pathlib import Path
from core.contracts.events import PhaseStarted
from core.contracts.run_spec import load_spec
from core.jobs.worker import resume_worker, run_worker
from core.runs.folder import RunFolder
from core.settings import load_settings

spec, folder, settings = load_spec(Path(sys.argv[1])), Path(sys.argv[2]), load_settings()

def limit(phase, extra_bytes):
    def act(event):
        if isinstance(event, PhaseStarted) and event.phase == phase:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + extra_bytes
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    return act

for phase in ("loading", "data", "search", "evaluation"):
    for extra_bytes in (0, 1 << 20):
        run = RunFolder(folder / f"{phase}-{extra_bytes}")
        run_worker(spec, settings, run, on_event=limit(phase, extra_bytes))
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(resume_worker(settings, run).kind)
"""


def test_a_run_without_memory_says_so_and_resumes(
    tiny_llama: Path, tiny_expert: Path, files: Files, tmp_path: Path
) -> None:
    pool = {
        "base": str(tiny_llama),
        "experts": [{"model": str(tiny_expert), "domain": "poetry"}],
        "dtype": "float32",
    }
    spec = spec_of(tiny_llama, tiny_expert, files, pool=pool, search={"steps": 4, "compare": ["equal"]})
    (tmp_path / "spec.yaml").write_text(spec.to_yaml())
    places = {"SAFEMERGE_HOME": str(tmp_path / "home"), "SAFEMERGE_RUNS": str(tmp_path / "runs")}
    command = [sys.executable, "-c", CHILD, str(tmp_path / "spec.yaml"), str(tmp_path / "runs")]
    threads = {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | places | threads, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["finished"] * 8
    ends = {path.name: _how_it_ended(RunFolder(path)) for path in sorted((tmp_path / "runs").iterdir())}
    assert [end for end in ends.values() if end and "not enough memory" not in end] == [], ends
    assert sum("not enough memory" in end for end in ends.values()) >= 3, ends


def _how_it_ended(folder: RunFolder) -> str:
    """The message of the failure that the resumed run replaced; empty when the run had finished at once."""
    return next((event.ended for event in folder.read_events() if event.kind == "resumed"), "")
