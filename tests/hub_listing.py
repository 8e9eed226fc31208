"""How the Hub lists the files of a repository: for the test's Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def list_entries(files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Files and folders of a repository."""
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    listed = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
    return listed + [_file_entry(name, path) for name, path in files.items()]


def git_hash(path: Path) -> str:
    """The hash by which git names a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _file_entry(name: str, path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    entry = {"type": "file", "path": name, "size": size, "oid": git_hash(path)}
    if not name.endswith(".safetensors"):
        return entry
    return {**entry, "lfs": {"oid": hashlib.sha256(path.read_bytes()).hexdigest(), "size": size, "pointerSize": 130}}
