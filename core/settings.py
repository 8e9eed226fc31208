"""The only place that reads the environment: where files are kept and what this deployment allows."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ASSETS = REPOSITORY / "assets"
SPACE_PREFIX = "space:"
"""Begins the machine name of a Space."""
BUCKET = Path("/data")
"""Where a Space mounts its storage bucket."""


@dataclass(frozen=True)
class Settings:
    """The settings that a process reads from its environment.

    Attributes:
        home: folder for downloaded and prepared models (`SAFEMERGE_HOME`).
        runs: folder that holds one folder per run (`SAFEMERGE_RUNS`).
        on_space: True inside a Hugging Face Space (`SPACE_ID` is set): local paths are refused there.
        zero_gpu: True on a Space that borrows a GPU for single calls (`SPACES_ZERO_GPU`): no run has a worker there.
        storage: folder that outlives a restart (`SAFEMERGE_STORAGE`; on a Space `/data`, where a bucket is mounted):
            finished runs are copied to it and restored from it. It takes whole files, no appends. None = none.
        listen: address that the page listens on (`SAFEMERGE_LISTEN`).
        allowed_users: Hub user names that may start work on a Space (`SAFEMERGE_ALLOWED_USERS`, commas).
        token: Hub token (`HF_TOKEN`), never logged and never written to a run folder.
        hub_timeout_s: how long one Hub request may take before it counts as unreachable.
        hosts: host names besides those of this machine under which the page may be opened (`SAFEMERGE_HOSTS`, commas;
            on a Space also `SPACE_HOST`).
        reply_cache_bytes: most bytes of generated questions and domain answers to keep for later runs, 0 = none
            (`SAFEMERGE_REPLY_CACHE_MB`).
    """

    home: Path
    runs: Path
    on_space: bool
    allowed_users: frozenset[str]
    token: str | None
    hub_timeout_s: float
    reply_cache_bytes: int = 256_000_000
    hosts: frozenset[str] = frozenset()
    zero_gpu: bool = False
    storage: Path | None = None
    listen: str = "127.0.0.1"

    @property
    def uploads(self) -> Path:
        """The folder of files that were uploaded on the page."""
        return self.home / "uploads"

    def __repr__(self) -> str:
        return f"Settings(home={self.home}, runs={self.runs}, on_space={self.on_space})"


def load_settings(environment: dict[str, str] | None = None) -> Settings:
    """Read settings from `environment` (default: the process environment)."""
    env = dict(os.environ) if environment is None else environment
    on_space = bool(env.get("SPACE_ID"))
    cache = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(env.get("SAFEMERGE_HOME") or _writable(cache) / "safemerge")
    runs = REPOSITORY if _writable(REPOSITORY) == REPOSITORY else home
    storage = env.get("SAFEMERGE_STORAGE") or (str(BUCKET) if on_space and BUCKET.is_dir() else "")
    return Settings(
        home=home,
        runs=Path(env.get("SAFEMERGE_RUNS") or runs / "runs"),
        on_space=on_space,
        allowed_users=_names(env, "SAFEMERGE_ALLOWED_USERS"),
        token=env.get("HF_TOKEN") or None,
        hub_timeout_s=float(env.get("SAFEMERGE_HUB_TIMEOUT") or 10.0),
        reply_cache_bytes=int(float(env.get("SAFEMERGE_REPLY_CACHE_MB") or 256) * 1_000_000),
        hosts=frozenset(name.lower() for name in _names(env, "SAFEMERGE_HOSTS") | _names(env, "SPACE_HOST")),
        zero_gpu=on_space and env.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"),
        storage=Path(storage) if storage else None,
        listen=env.get("SAFEMERGE_LISTEN") or ("0.0.0.0" if on_space else "127.0.0.1"),
    )


def _writable(folder: Path) -> Path:
    """The folder, if files can be created in it or in the nearest parent that exists; else the system's temporary one.

    Some hosts mount a home that can only be read.
    """
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
    return folder if existing and os.access(existing, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _names(environment: dict[str, str], variable: str) -> frozenset[str]:
    """The names in a variable, which are separated by commas."""
    return frozenset(name.strip() for name in environment.get(variable, "").split(",") if name.strip())


def machine_name(environment: dict[str, str] | None = None) -> str:
    """The name that this machine writes into process marks: its host name, or on a Space the Space's id.

    A Space's container gets a new host name at every restart, but only one container of a Space works at a time.
    """
    env = dict(os.environ) if environment is None else environment
    return f"{SPACE_PREFIX}{env['SPACE_ID']}" if env.get("SPACE_ID") else socket.gethostname()


def resolve_path(text: str) -> Path:
    """The file that a spec's path names: relative to the working directory, or to the repository for `assets/`."""
    path = expanded(text)
    return (
        path
        if path.is_absolute() or not text.startswith("assets/") or is_file(path) or is_folder(path)
        else REPOSITORY / path
    )


def expanded(text: str) -> Path:
    """The path that a person wrote, with the home folder for `~`; an unknown `~user` stays as it is.

    Null characters, which no path may have, are replaced, so that the file is missing instead of an error.
    """
    path = Path(text.replace("\0", "\ufffd"))
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def is_file(path: Path) -> bool:
    """Whether a path is a file that can be seen; False for a name that the system does not accept."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path is a folder that can be seen; False for a name that the system does not accept."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
