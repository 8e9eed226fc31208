"""What the local Hub serves: folders as repositories, pull requests with their own files, and listings of files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Repository:
    """One published model, or a dataset, whose name begins with `datasets/`.

    Attributes:
        gated: the licence must be accepted: files are refused without `token`.
    """

    folder: Path
    sha: str
    license: str | None = "apache-2.0"
    gated: bool = False
    private: bool = False

    def files(self) -> dict[str, Path]:
        return {str(path.relative_to(self.folder)): path for path in sorted(self.folder.rglob("*")) if path.is_file()}


@dataclass(frozen=True)
class Proposal:
    """A pull request with its own files."""

    repository: Repository
    author: str
    status: str


def entries(repository: Repository) -> list[dict[str, Any]]:
    """Files and folders of a repository, as the Hub lists them."""
    files = repository.files()
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    listed = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
    return listed + [_file_entry(name, path) for name, path in files.items()]


def _file_entry(name: str, path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    entry = {"type": "file", "path": name, "size": size, "oid": git_hash(path)}
    if not name.endswith(".safetensors"):
        return entry
    return {**entry, "lfs": {"oid": hashlib.sha256(path.read_bytes()).hexdigest(), "size": size, "pointerSize": 130}}


def git_hash(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
