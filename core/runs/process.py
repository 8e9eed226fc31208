"""Who is at work: starting a process, a mark that recognises it for good, and the lock of one job at a time.

A process number alone is reused by the system, so a mark also holds when that process started. The lock is an
advisory lock on a file: the system releases it when its holder dies, whatever it dies of.
"""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from core.errors import RunError

LOCK_NAME = ".busy"


@dataclass(frozen=True)
class ProcessMark:
    """One process: its number, and its start as the system tells it (opaque, compared for equality)."""

    pid: int
    start: str

    @property
    def alive(self) -> bool:
        """True while this very process runs; a zombie or a later process with the same number is not it."""
        return _start_of(self.pid) == self.start


def mark_process(pid: int) -> ProcessMark | None:
    """The mark of a process that runs now, or None when it is gone."""
    start = _start_of(pid)
    return None if start is None else ProcessMark(pid, start)


def memory_of(pid: int) -> int:
    """Resident bytes of a process; 0 when it is gone."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far (the kernel counts it in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _start_of(pid: int) -> str | None:
    """Start of a living process. Linux: boot and clock ticks since, which no change of the clock can move."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def start_detached(arguments: Sequence[str], environment: Mapping[str, str], log: Path, lock_fd: int) -> int:
    """Start a process in a session of its own, which outlives this one.

    Args:
        arguments: its command line.
        environment: all of its environment.
        log: file that its output is added to.
        lock_fd: open file that it inherits.

    Returns:
        Its number.

    Raises:
        RunError: it cannot be started.
    """
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(lock_fd,),
                start_new_session=True,
            )
    except OSError as error:
        raise RunError(f"The worker cannot be started: {error}.", "Check memory and disk space.") from error
    threading.Thread(target=process.wait, daemon=True).start()  # collects the exit status, so that no zombie stays
    return process.pid


class MachineLock:
    """The right to run a job on this machine; held until released or until every process that holds it is gone.

    It belongs to an open file, so a process started with that file inherits it without a moment in between.

    Args:
        fd: file descriptor that carries the lock; this object closes it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> MachineLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give this process's share of the lock back."""
        os.close(self.fd)


def acquire_lock(runs: Path, holder: Path) -> MachineLock:
    """Take the lock of the runs folder for a run.

    Args:
        runs: folder of all runs (`settings.runs`), made when missing.
        holder: folder of the run that will hold it, named to whoever comes second.

    Raises:
        RunError: another run holds it (the message names that run), or the folder cannot be written.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        fd = os.open(runs / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunError(f"The runs folder {runs} cannot be written: {error.strerror}.", "Set SAFEMERGE_RUNS.") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        busy = os.pread(fd, 4096, 0).decode("utf-8", errors="replace").strip() or "another run"
        os.close(fd)
        raise RunError(
            f"Another run is at work: {busy}.", "One run at a time: wait until it is over, or stop it first."
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(holder).encode("utf-8"), 0)
    return MachineLock(fd)


def inherit_lock(fd: int) -> MachineLock:
    """Take over a lock whose open file this process was started with.

    Raises:
        RunError: there is no such open file.
    """
    try:
        os.set_inheritable(fd, False)
    except OSError as error:
        raise RunError(f"There is no open lock with number {fd}.", "Start the run without --lock-fd.") from error
    return MachineLock(fd)
