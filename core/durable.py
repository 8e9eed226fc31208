"""Writes that survive a crash: whole files are renamed into place, and logs grow by whole lines.

Errors of the operating system become a `RunError` that says what to do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import RunError

_DRAFT = re.compile(r"\.(\d+)(?:-[0-9a-f]+)?\.tmp$")
"""Ends the name of a draft: the process that writes it."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader sees the old text or the new one, also after a crash.

    Args:
        path: the file; its folder is created when missing.
        text: the new content, written as UTF-8.

    Raises:
        RunError: the disk is full (code `disk-full`) or the file cannot be written (code `not-writable`); an old file
            is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with translate_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_synced(temporary, text.encode("utf-8"))
            temporary.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def writer_of(draft: Path) -> int | None:
    """Number of the process that a draft of `write_atomic` belongs to; None for other files."""
    match = _DRAFT.search(draft.name)
    return int(match[1]) if match else None


def append_line(path: Path, line: str) -> None:
    """Append a whole line to a log, or nothing.

    An incomplete line that a killed writer left at the end is removed first.

    Raises:
        RunError: the disk is full or the log cannot be written; the log is then unchanged.
    """
    with locked_log(path) as fd:
        write_line(fd, line)


@contextmanager
def locked_log(path: Path) -> Iterator[int]:
    """Open a log for appending, remove an incomplete last line, and keep other writers out meanwhile."""
    with translate_os_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            _drop_incomplete_line(fd)
            yield fd
        finally:
            os.close(fd)


def _drop_incomplete_line(fd: int) -> None:
    size = os.fstat(fd).st_size
    end = _line_start(fd, size)
    if end < size:
        os.ftruncate(fd, end)


def last_line(fd: int) -> tuple[int, bytes]:
    """The offset of a log's last complete line, and the line without its newline; (0, b"") for an empty log."""
    end = max(0, os.fstat(fd).st_size - 1)
    start = _line_start(fd, end)
    return start, os.pread(fd, end - start, start)


def _line_start(fd: int, end: int) -> int:
    """The offset where the line that contains offset `end` begins."""
    while end > 0:
        start = max(0, end - 8192)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def write_line(fd: int, line: str) -> None:
    """Write a line at the end of a locked log; on an error the log keeps its old end."""
    size = os.fstat(fd).st_size
    try:
        _write_all(fd, line.encode("utf-8") + b"\n")
    except OSError:
        os.ftruncate(fd, size)
        raise


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _write_synced(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot sync a folder; the rename has happened in any case
            os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors about `path` into `RunError`s that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise RunError(
                f"There is no space left to write {path}.",
                "Free disk space and try again; a run can be resumed.",
                code="disk-full",
            ) from error
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Check that the folder exists and that you may write to it.",
            code="not-writable",
        ) from error
