"""Starting and stopping work on behalf of the page: who may, with which files, and which run is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from core.comparison_spec import AnySpec
from core.errors import RunError
from core.runs.history import stop_run
from core.runs.worker import start_run
from safemerge_ui.access import refuse_local_paths, require_starter
from safemerge_ui.bench import Bench
from safemerge_ui.errors import RunIsBusy


@contextmanager
def naming_a_busy_run(bench: Bench) -> Iterator[None]:
    """Where a run cannot start because another is at work, say which, so that the page can follow that one."""
    try:
        yield
    except RunError:
        busy = bench.watch.busy_run()
        if busy is None:
            raise
        raise RunIsBusy(busy) from None


def start(bench: Bench, spec: AnySpec) -> str:
    """Start a worker for `spec`, for a visitor who may; returns the run's id.

    Raises:
        SafeMergeError: on a Space the spec names a local file, or another run is at work.
    """
    refuse_local_paths(spec, bench.settings)
    with naming_a_busy_run(bench):
        return start_run(spec, bench.settings)


def stop(bench: Bench, run_id: str, profile: gr.OAuthProfile | None) -> Any:
    """End the run on this page; what it has done stays. Returns the update of the button that was clicked."""
    require_starter(bench.settings, profile)
    stop_run(bench.watch.folder(run_id))
    return gr.update(interactive=False)
