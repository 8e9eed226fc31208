"""Keeps finished runs in a storage folder that outlives the machine's disk, such as a bucket mounted by a Space.

Such a folder takes whole files that are written from start to end: no appends, locks or renames. So live runs, whose
logs grow, stay on the local disk. A finished run is copied file by file; its manifest is written last and names every
file with its size. A copy without a manifest is incomplete and is never restored.

    STORAGE/runs/RUN_ID/saved.json, and below it the files of the run folder
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from core.contracts.events import is_terminal, parse_event
from core.durable import last_line
from core.errors import RunError
from core.runs.folder import RunFolder

MANIFEST = "saved.json"
LINKED_BYTES = 64_000_000
"""Files of at least this size are restored as links into the storage, so that a start does not copy weights."""
_LEFT_OUT = ("stop", "worker.json", ".summary.json")

_LOG = logging.getLogger(__name__)

Files = dict[str, list[int]]
"""Size in bytes and time of change in nanoseconds of each file, by its path in the run folder."""


class RunStorage:
    """The finished runs below `storage`.

    Args:
        storage: the folder that outlives the local disk.
        runs: local folder of all runs.
    """

    def __init__(self, storage: Path, runs: Path) -> None:
        self._saved = storage / "runs"
        self._runs = runs

    def save_finished(self) -> list[str]:
        """Copy every run that is over and has changed since its last copy; returns their ids.

        A run that cannot be copied is logged and tried again at the next call.
        """
        return [path.name for path in self._local() if _is_over(path) and self._attempt(self._save, path)]

    def restore(self) -> list[str]:
        """Restore every saved run that is missing locally; returns their ids.

        A run whose files are damaged is logged and left out.
        """
        saved = sorted(path.parent for path in self._saved.glob(f"*/{MANIFEST}"))
        missing = [path for path in saved if not (self._runs / path.name).exists()]
        return [path.name for path in missing if self._attempt(self._restore, path)]

    def forget(self, run_id: str) -> None:
        """Delete the saved copy of a run; nothing if there is none."""
        copy = self._saved / run_id
        with suppress(OSError):
            (copy / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(copy, ignore_errors=True)

    def _local(self) -> Iterator[Path]:
        for path in sorted(self._runs.glob("*/")):
            if not path.is_symlink() and not path.name.startswith(".") and RunFolder(path).is_run:
                yield path

    def _attempt(self, action: Callable[[Path], bool], path: Path) -> bool:
        try:
            return action(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("Run %s was not copied to or from the storage: %s", path.name, error)
            return False

    def _save(self, run: Path) -> bool:
        copy = self._saved / run.name
        before = _manifest(copy)
        files = {
            name: before[name] if (run / name).is_symlink() and name in before else facts
            for name, facts in _files(run).items()
        }
        if files == before:
            return False
        copy.mkdir(parents=True, exist_ok=True)
        (copy / MANIFEST).unlink(missing_ok=True)
        for name, facts in files.items():
            if before.get(name) != facts:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run / name, copy / name)
        for name in before.keys() - files.keys():
            (copy / name).unlink(missing_ok=True)
        (copy / MANIFEST).write_text(json.dumps(files), encoding="utf-8")
        return True

    def _restore(self, copy: Path) -> bool:
        partial = self._runs / f".restoring-{copy.name}"
        shutil.rmtree(partial, ignore_errors=True)
        for name, (size, changed) in _manifest(copy).items():
            source, target = copy / name, partial / name
            if not target.resolve().is_relative_to(partial.resolve()) or source.stat().st_size != size:
                raise ValueError(f"{name} is not as it was saved")
            target.parent.mkdir(parents=True, exist_ok=True)
            if size >= LINKED_BYTES:
                target.symlink_to(source)
            else:
                shutil.copyfile(source, target)
                os.utime(target, ns=(changed, changed))
        partial.rename(self._runs / copy.name)
        return True


def _is_over(run: Path) -> bool:
    """Whether the last line of a run's log is a terminal event."""
    try:
        with RunFolder(run).events_path.open("rb") as log:
            line = last_line(log.fileno())[1]
        return bool(line) and is_terminal(parse_event(line.decode("utf-8")))
    except (OSError, ValueError, RunError):
        return False


def _files(run: Path) -> Files:
    """The files of a run that are saved; temporary files and what belongs to a process are left out."""
    found: Files = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and name not in _LEFT_OUT and not (path.name.startswith(".") and path.suffix == ".tmp"):
            facts = path.stat()
            found[name] = [facts.st_size, facts.st_mtime_ns]
    return found


def _manifest(copy: Path) -> Files:
    """The files of a complete copy; empty if there is none, or if the manifest cannot be read."""
    try:
        files = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
        return {str(name): [int(size), int(changed)] for name, (size, changed) in files.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
