"""Starts and stops runs for the page, after checking who may and which files the spec names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from core.contracts.comparison_spec import AnySpec
from core.errors import RunError
from core.jobs.worker import resume_run, start_run
from core.runs.folder import RunFolder
from core.runs.history import stop_run
from safemerge_ui.access import refuse_local_paths, require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.errors import NoMergesHere, RunIsBusy


@contextmanager
def naming_a_busy_run(context: AppContext) -> Iterator[None]:
    """Turn the error that another run is at work into one that names the run, so that the page can follow it."""
    try:
        yield
    except RunError:
        busy = context.watch.busy_run()
        if busy is None:
            raise
        raise RunIsBusy(busy) from None


def start(context: AppContext, spec: AnySpec) -> str:
    """Start a worker for `spec` and return the run's id; the caller has checked that the visitor may.

    Raises:
        NoMergesHere: a merge on ZeroGPU.
        SafeMergeError: on a Space the spec names a local file, or another job is at work.
    """
    refuse_local_paths(spec, context.settings)
    if context.zero_gpu is not None:
        return context.zero_gpu.start(spec)
    with naming_a_busy_run(context):
        return start_run(spec, context.settings)


def resume(context: AppContext, folder: RunFolder) -> None:
    """Start a worker that continues a run; the caller has checked that the visitor may.

    Raises:
        NoMergesHere: the machine has no workers.
        SafeMergeError: the run cannot be resumed, or another job is at work.
    """
    refuse_without_workers(context)
    with naming_a_busy_run(context):
        resume_run(folder, context.settings)


def refuse_without_workers(context: AppContext) -> None:
    """Raise `NoMergesHere` where no detached worker can run: on ZeroGPU."""
    if context.zero_gpu is not None:
        raise NoMergesHere


def stop(context: AppContext, run_id: str, profile: gr.OAuthProfile | None) -> Any:
    """Stop the run on this page; its files stay. Returns the update of the button that was clicked."""
    require_starter(context.settings, profile)
    stop_run(context.watch.folder(run_id))
    return gr.update(interactive=False)
