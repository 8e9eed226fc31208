"""What the benchmarks over several seeds share: a run taken to its end once, and rates pooled over the runs."""

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
from core.settings import Settings


def run_to_end(spec: RunSpec, settings: Settings, folder: RunFolder) -> RunResult:
    """The result of a run: of an earlier time, of the rest of a run that was cut off, or of a new one.

    A cut-off run that cannot go on (another version wrote it) is moved aside, beside its folder.

    Raises:
        RunError: the run failed, or another process works on it.
        RunCancelled: it was stopped.
    """
    if result := finished_result(folder):
        return result
    end = _work(spec, settings, folder)
    if isinstance(end, Cancelled):
        raise RunCancelled
    result = finished_result(folder)
    if result is None:
        failed = end if isinstance(end, Failed) else Failed(message="The run ended without a result.")
        raise RunError(f"{folder.path}: {failed.message}", failed.hint)
    return result


def _work(spec: RunSpec, settings: Settings, folder: RunFolder) -> Event:
    if not folder.events_path.exists():
        return run_worker(spec, settings, folder)
    if (worker := folder.read_worker()) and worker.alive:
        raise RunError(f"Process {worker.pid} works on {folder.path}.", "Wait for it, or give other seeds.")
    try:
        return resume_worker(settings, folder)
    except SafeMergeError:
        folder.path.rename(folder.path.with_name(f"{folder.path.name}.cut-off-{new_run_id()}"))
        return run_worker(spec, settings, folder)


def finished_result(folder: RunFolder) -> RunResult | None:
    """`result.json` of a run; None while there is none.

    Raises:
        RunError: the file is not a result.
    """
    try:
        data = json.loads(folder.result_path.read_text(encoding="utf-8"))
        return RunResult.model_validate({key: value for key, value in data.items() if key != "schema"})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise RunError(f"{folder.result_path} cannot be read: {error}.", "Move the folder away.") from error


def read_model(result: RunResult, name: str) -> ModelResult | None:
    """What a run measured of one model."""
    return next((model for model in result.models if model.name == name), None)


def distinct(models: Sequence[ModelResult]) -> list[ModelResult]:
    """Models with each set of weights once: what is the same with every seed is measured once, however often it was."""
    return list({model.sha256 or str(place): model for place, model in enumerate(models)}.values())


def pool_rates(rates: Sequence[Rate]) -> Rate:
    """Counts of several rates added up, with one Wilson interval.

    Seeds share their prompts, so that the interval understates what other prompts would add.

    Raises:
        DataError: there are none.
    """
    return wilson(sum(round(rate.rate * rate.n) for rate in rates), sum(rate.n for rate in rates))


def rate_text(rate: Rate) -> str:
    """A rate as the pages write it: `0.875 [0.816, 0.917] n=168`."""
    return f"{rate.rate:.3f} [{rate.low:.3f}, {rate.high:.3f}] n={rate.n}"


def minutes_text(seconds: Sequence[float]) -> str:
    """`6.0 / 5.9 / 5.7`."""
    return " / ".join(f"{value / 60:.1f}" for value in seconds)
