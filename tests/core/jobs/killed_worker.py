"""A worker process that is killed with kill -9: `python killed_worker.py N SPEC --out DIR --lock-fd L`.

The real job runs until its N-th candidate is in the log.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from core.contracts.events import CandidateScored, Event
from core.contracts.run_spec import load_spec
from core.jobs.worker import run_worker
from core.runs.folder import RunFolder
from core.runs.process import inherit_lock
from core.settings import load_settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("candidates", type=int)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--lock-fd", type=int)
    arguments = parser.parse_args()

    def kill(event: Event) -> None:
        if isinstance(event, CandidateScored) and event.candidate + 1 == arguments.candidates:
            os.kill(os.getpid(), signal.SIGKILL)

    with inherit_lock(arguments.lock_fd):
        run_worker(load_spec(arguments.spec), load_settings(), RunFolder(arguments.out), on_event=kill)


if __name__ == "__main__":
    main()
