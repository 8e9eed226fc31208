"""Runs over several seeds, for `effect` and `paper`: finish each run once, and pool the rates of all."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import ValidationError

from core.contracts.events import Cancelled, Event, Failed
from core.contracts.results import ModelResult, Rate, RunResult
from core.contracts.run_spec import RunSpec
from core.errors import RunCancelled, RunError, SafeMergeError
from core.evaluation.statistics import wilson
from core.jobs.worker import new_run_id, resume_worker, run_worker
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.settings import Settings


def run_to_end(spec: RunSpec, settings: Settings, folder: RunFolder) -> RunResult:
    """Return the result of a run: read it, resume an interrupted run, or start a new one.

    An interrupted run that cannot resume (another version wrote it) is renamed, and a new run starts.

    Raises:
        RunError: the run failed, or another process is working on it.
        RunCancelled: the run was stopped.
    """
    if result := finished_result(folder):
        return result
    end = _work(spec, settings, folder)
    if isinstance(end, Cancelled):
        raise RunCancelled
    result = finished_result(folder)
    if result is None:
        failed = end if isinstance(end, Failed) else Failed(message="The run ended without a result.")
        raise RunError(f"{folder.path}: {failed.message}", failed.hint, code="run-failed")
    return result


def _work(spec: RunSpec, settings: Settings, folder: RunFolder) -> Event:
    if not folder.events_path.exists():
        return run_worker(spec, settings, folder)
    worker = folder.read_worker()
    if worker and (worker.alive or (worker.state == "unknown" and not read_view(folder).over)):
        raise RunError(
            f"Process {worker.pid} is working on {folder.path}.",
            "Wait until it ends, or give other seeds.",
            code="run-is-active",
        )
    try:
        return resume_worker(settings, folder)
    except SafeMergeError:
        folder.path.rename(folder.path.with_name(f"{folder.path.name}.cut-off-{new_run_id()}"))
        return run_worker(spec, settings, folder)


def finished_result(folder: RunFolder) -> RunResult | None:
    """Return the content of a run's `result.json`; None if the file does not exist.

    Raises:
        RunError: the file is not a valid result.
    """
    try:
        data = json.loads(folder.result_path.read_text(encoding="utf-8"))
        return RunResult.model_validate({key: value for key, value in data.items() if key != "schema"})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise RunError(
            f"{folder.result_path} cannot be read: {error}.", "Move its folder away.", code="unreadable-result"
        ) from error


def read_model(result: RunResult, name: str) -> ModelResult | None:
    """Return what a run measured of one model; None if it did not."""
    return next((model for model in result.models if model.name == name), None)


def distinct(models: Sequence[ModelResult]) -> list[ModelResult]:
    """Return one model for each set of weights: equal weights count as one measurement, in however many seeds."""
    return list({model.sha256 or str(index): model for index, model in enumerate(models)}.values())


def pool_rates(rates: Sequence[Rate]) -> Rate:
    """Return the rate of all counts together, with one Wilson interval.

    All seeds use the same prompts, so the interval leaves out the variation between prompts.

    Raises:
        DataError: there are no rates.
    """
    return wilson(sum(round(rate.rate * rate.n) for rate in rates), sum(rate.n for rate in rates))


def rate_text(rate: Rate) -> str:
    """Return a rate as text: `0.875 [0.816, 0.917] n=168`."""
    return f"{rate.rate:.3f} [{rate.low:.3f}, {rate.high:.3f}] n={rate.n}"


def minutes_text(seconds: Sequence[float]) -> str:
    """Return seconds as minutes: `6.0 / 5.9 / 5.7`."""
    return " / ".join(f"{value / 60:.1f}" for value in seconds)
