"""The models of the recorded run, for live replies: pool members by reference, merges made again from their recipes.

A merge is made by `python -m core export` in a process of its own, which checks that its weights have the hash that the
run measured, and is kept in SafeMerge's home folder.
"""

from __future__ import annotations

import os
import subprocess
import sys

from core.demo.recording import RecordedRun
from core.errors import RunError
from core.models.demo_base import base_folder
from core.models.references import ModelReference, parse_reference
from core.runs.candidates import find_candidate
from core.runs.folder import RunFolder
from core.runs.view import fold
from core.settings import REPOSITORY, Settings

EXPORT = (sys.executable, "-m", "core", "export")
TIMEOUT_S = 600.0


def are_available(settings: Settings) -> bool:
    """Whether the demo's base model is on this machine, so that its models can reply without a download."""
    return (base_folder(settings) / "config.json").is_file()


def made_before(run: RecordedRun, name: str, settings: Settings) -> ModelReference | None:
    """A member of the pool, or a merge that was made before; None for a merge that has to be made."""
    result = next(model for model in fold(run.events).models if model.name == name)
    if result.recipe is None:
        return parse_reference(name, settings)
    folder = settings.home / "story" / f"{name}-{(result.sha256 or '')[:16]}"
    return ModelReference("folder", str(folder)) if (folder / "config.json").is_file() else None


def make_merge(run: RecordedRun, name: str, settings: Settings) -> ModelReference:
    """Make a merge of the recorded run again; takes up to a minute.

    Raises:
        RunError: another run is at work, or the merge cannot be made here (code `not-merged`).
    """
    view = fold(run.events)
    result, best = next(model for model in view.models if model.name == name), view.best(name)
    if best is None:
        raise RunError(f"The recording has no candidates of {name}.", "Make it again.", code="no-candidates")
    target = settings.home / "story" / f"{name}-{(result.sha256 or '')[:16]}"
    find_candidate(RunFolder(run.folder), best.candidate, search=name, target=target)
    command = [*EXPORT, str(run.folder), "--candidate", str(best.candidate), "--search", name, "--out", str(target)]
    environment = {**os.environ, "SAFEMERGE_HOME": str(settings.home), "SAFEMERGE_RUNS": str(settings.runs)}
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(name, str(error)) from error
    if done.returncode != 0:
        raise _failed(name, done.stderr.partition("Error: ")[2].strip() or f"exit code {done.returncode}")
    return ModelReference("folder", str(target))


def _failed(name: str, why: str) -> RunError:
    return RunError(f"The merge {name} could not be made: {why}", "The recorded replies stay valid.", code="not-merged")
