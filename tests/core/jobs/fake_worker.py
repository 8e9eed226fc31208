"""A worker process whose job never ends without a stop: `python fake_worker.py HOW SPEC --out DIR --lock-fd N`.

Without `--out` it continues the run in the folder SPEC.

HOW is `polite` (the job polls should_stop), `deaf` (it sleeps without polling and only a signal reaches it),
`stone` (it also ignores signals), or `crash` (the process ends before it works).
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from core.contracts.events import Event, PhaseStarted, RunStarted
from core.contracts.run_spec import RunSpec, load_spec
from core.errors import RunCancelled
from core.jobs.worker import resume_worker, run_worker
from core.runs.folder import RunFolder
from core.runs.process import inherit_lock
from core.settings import Settings, load_settings


def polite(spec: RunSpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool]) -> Iterator[Event]:
    yield RunStarted(spec=spec.model_dump(mode="json"))
    yield PhaseStarted(phase="search")
    while not should_stop():
        time.sleep(0.02)
    raise RunCancelled


def deaf(spec: RunSpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool]) -> Iterator[Event]:
    yield RunStarted(spec=spec.model_dump(mode="json"))
    yield PhaseStarted(phase="loading")
    time.sleep(600)


def stone(spec: RunSpec, settings: Settings, folder: RunFolder, should_stop: Callable[[], bool]) -> Iterator[Event]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield from deaf(spec, settings, folder, should_stop)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("how")
    parser.add_argument("spec", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--lock-fd", type=int)
    arguments = parser.parse_args()
    if arguments.how == "crash":
        sys.exit("no such library")
    job = {"polite": polite, "deaf": deaf, "stone": stone}[arguments.how]
    with inherit_lock(arguments.lock_fd):
        if arguments.out is None:
            settings, folder = load_settings(), RunFolder(arguments.spec)
            resume_worker(settings, folder, job=lambda *parts: job(*parts[:4]), reopened=True)
            return
        run_worker(load_spec(arguments.spec), load_settings(), RunFolder(arguments.out), job=job)


if __name__ == "__main__":
    main()
