"""Converts pickled weights to safetensors once; a separate process reads them, never this one.

A pickle can run code when it is read. `core.models.pickle_worker` reads it with torch's restricted unpickler in a
process without network, token or write access outside its output folder. The result is kept under `settings.home`,
with the sha256 of the pickles, and only the result is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import ModelError
from core.models.pickle_worker import REFUSED
from core.settings import Settings

_WORKER = Path(__file__).with_name("pickle_worker.py")
_TIMEOUT_S = {"list": 600, "convert": 6 * 3600}
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "TMPDIR")
_HINT = "Choose a model with safetensors weights, or another revision of this one."
_BYTES_PER_S = 150e6
"""Assumed rate of a conversion: read, write and hash on an ordinary disk."""


class ListedTensor(NamedTuple):
    """Shape and safetensors dtype of one pickled tensor."""

    shape: tuple[int, ...]
    dtype: str


def converted_folder(files: Sequence[Path], settings: Settings) -> Path | None:
    """The folder of an earlier conversion of these files, None if there is none."""
    folder = _folder(files, settings)
    return folder if (folder / "source.json").is_file() else None


def convert(files: Sequence[Path], source: str, settings: Settings) -> list[Path]:
    """Convert pickled files to safetensors, unless that was done before, and return the converted files.

    Args:
        files: the pickles of one model, on this machine.
        source: the model, for messages.
        settings: of this machine.

    Raises:
        ModelError: the restricted unpickler refuses a file (code `pickle-refused`), or the conversion fails
            (`pickle-conversion-failed`).
    """
    folder = _folder(files, settings)
    if converted_folder(files, settings) is None:
        draft = _run("convert", files, source, folder)
        try:
            draft.rename(folder)
        except OSError:  # another process converted it meanwhile
            shutil.rmtree(draft, ignore_errors=True)
    return sorted(folder.glob("*.safetensors"))


def list_tensors(files: Sequence[Path], source: str, settings: Settings) -> dict[str, ListedTensor]:
    """Shapes and dtypes of the tensors in pickled files; the separate process reads no values.

    Raises:
        ModelError: as for `convert`.
    """
    folder = _folder(files, settings)
    listed = folder.with_suffix(".json")
    if not listed.is_file():
        draft = _run("list", files, source, folder)
        (draft / "tensors.json").replace(listed)
        shutil.rmtree(draft, ignore_errors=True)
    tensors = json.loads(listed.read_text(encoding="utf-8"))
    return {str(name): ListedTensor(tuple(shape), str(dtype)) for name, (shape, dtype) in tensors.items()}


def conversion_seconds(size_bytes: int) -> float:
    """How long a conversion takes: an estimate from an assumed rate of 150 MB/s."""
    return size_bytes / _BYTES_PER_S


def _folder(files: Sequence[Path], settings: Settings) -> Path:
    """Where the conversion of these files is kept: the name changes whenever one of the files does."""
    paths = [path.resolve() for path in files]
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return settings.home / "converted" / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _run(task: str, files: Sequence[Path], source: str, folder: Path) -> Path:
    """Run the worker, and return the folder with its output."""
    draft = folder.with_name(f".{folder.name}.{task}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    command = [sys.executable, "-I", "-B", str(_WORKER), task, str(draft), *(str(path.resolve()) for path in files)]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        done = subprocess.run(
            command,
            cwd=draft,
            env={**environment, "HOME": str(draft), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S[task],
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        shutil.rmtree(draft, ignore_errors=True)
        message = f"Reading the pickled weights of {source} took longer than {_TIMEOUT_S[task]} s."
        raise ModelError(message, _HINT, code="pickle-conversion-failed") from error
    if done.returncode == 0:
        return draft
    shutil.rmtree(draft, ignore_errors=True)
    raise _failure(done, source)


def _failure(done: subprocess.CompletedProcess[str], source: str) -> ModelError:
    lines = [line for line in (done.stdout if done.returncode == REFUSED else done.stderr).splitlines() if line]
    reason = lines[-1] if lines else f"the process ended with status {done.returncode}"
    if done.returncode == REFUSED:
        message = f"The pickled weights of {source} are refused by the restricted unpickler: {reason}."
        return ModelError(message, _HINT, code="pickle-refused")
    message = f"The pickled weights of {source} cannot be converted: {reason}."
    return ModelError(message, "Free disk space or memory, and try again.", code="pickle-conversion-failed")
