"""What is wrong in a run folder after a kill, and what a finished run must have in common with an undisturbed one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from core.contracts.events import CandidateScored, Exported
from core.errors import SafeMergeError
from core.runs.folder import RunFolder

_GROWING = ("events.jsonl", "candidates.jsonl")
"""Logs, whose last line may be incomplete: the next writer removes it."""
_DIFFERENT = {"events.jsonl", "candidates.jsonl", "result.json", "worker.json", "worker.log", "spec.yaml"}
"""Files with times or process numbers; the first three are compared without them."""


def is_draft(path: Path, folder: Path) -> bool:
    """Whether a file is one that is written before it is renamed into place."""
    return any(part.startswith(".") and part != ".summary.json" for part in path.relative_to(folder).parts)


def half_written(folder: Path) -> list[str]:
    """The files that cannot be read, apart from drafts and the last line of a log, each with the reason."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not is_draft(path, folder):
            try:
                _read(path)
            except (ValueError, OSError, SafetensorError, SafeMergeError) as error:
                found.append(f"{path.relative_to(folder)}: {error}")
    return found


def leftovers(folder: Path) -> list[str]:
    """The drafts that a finished run has left behind."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if is_draft(path, folder))


def _read(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".jsonl":
        *lines, last = path.read_bytes().split(b"\n")
        for line in lines:
            json.loads(line)
        if last and path.name not in _GROWING:
            raise ValueError("the last line has no end")
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="np") as weights:
            list(weights.keys())
    elif path.name == "spec.yaml":
        RunFolder(path.parent).read_spec()


def saved_sha256(folder: RunFolder) -> str:
    """sha256 of the run's merge; empty when it was not saved."""
    return next((event.sha256 for event in folder.read_events() if isinstance(event, Exported)), "")


def ending_of(folder: RunFolder) -> dict[str, Any]:
    """What two runs of one spec must have in common, by its name: figures, candidates, and the hash of each file."""
    result = json.loads(folder.result_path.read_bytes())
    result.pop("peak_memory_bytes")
    scored = [event.model_dump(mode="json") for event in folder.read_events() if isinstance(event, CandidateScored)]
    written = [json.loads(line) for line in folder.candidates_path.read_bytes().splitlines()]
    return {
        "result.json": _without_times(result),
        "candidates in the log": _without_times(scored),
        "candidates.jsonl": _without_times(written),
        **dict(_file_hashes(folder.path)),
    }


def differences(ending: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The names of what differs."""
    return sorted(name for name in {*ending, *expected} if ending.get(name) != expected.get(name))


def _file_hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in _DIFFERENT and not is_draft(path, folder) and path.name != ".summary.json":
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in ("at", "seconds")}
    return [_without_times(item) for item in value] if isinstance(value, list) else value
