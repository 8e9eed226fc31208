"""Worker processes: how one is started, how it is recognized later, and the lock that allows one job at a time.

The system reuses process numbers, so a mark also holds when and where the process started. The lock is an advisory
lock on an open file: the system releases it when the last process that holds it ends, however it ends.
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
from typing import Literal

import psutil

from core.errors import RunError
from core.runs.host import Host, this_host, view_of

LOCK_NAME = ".busy"
ProcessState = Literal["alive", "gone", "unknown"]


@dataclass(frozen=True)
class ProcessMark:
    """Identifies one process: the content of `worker.json`.

    Attributes:
        pid: process number.
        start: when the process started, as the system reports it (opaque; compared for equality).
        host: host name (`core.runs.host.Host.name`); this and what follows is empty in marks of older versions.
        machine: identity of the installed system.
        boot: start of that host's kernel.
        pid_namespace: in which `pid` counts.
    """

    pid: int
    start: str
    host: str = ""
    machine: str = ""
    boot: str = ""
    pid_namespace: str = ""

    @property
    def state(self) -> ProcessState:
        """Whether the process runs; `unknown` when it belongs to another host or container.

        A zombie, or a later process with the same number, counts as gone.
        """
        view = view_of(Host(self.host, self.machine, self.boot, self.pid_namespace))
        if view == "elsewhere":
            return "unknown"
        return "alive" if view == "here" and _start_of(self.pid) == self.start else "gone"

    @property
    def alive(self) -> bool:
        """True when the process can be seen from here and runs."""
        return self.state == "alive"

    @property
    def place(self) -> str:
        """The process and its host, for messages."""
        other = " (another container or an earlier start of it)" if self.host == this_host().name else ""
        return f"process {self.pid} on host {self.host}{other}"


def mark_process(pid: int) -> ProcessMark | None:
    """The mark of a process of this host that runs now; None when it is gone."""
    start = _start_of(pid)
    return None if start is None else ProcessMark(pid, start, *this_host())


def mark_started(pid: int) -> ProcessMark:
    """The mark of a process that this one started or is; it counts as gone when it has ended already."""
    return mark_process(pid) or ProcessMark(pid, "ended", *this_host())


def memory_of(pid: int) -> int:
    """Resident bytes of a process; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far (the kernel counts it in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _start_of(pid: int) -> str | None:
    """Start of a living process. Linux: boot id and clock ticks since boot, which clock changes do not affect."""
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


def start_detached(arguments: Sequence[str], environment: Mapping[str, str], log: Path, lock_fd: int | None) -> int:
    """Start a process in its own session, which outlives this one.

    Args:
        arguments: its command line.
        environment: its whole environment.
        log: file that its output is appended to.
        lock_fd: open file that it inherits; None for none.

    Returns:
        Its process number.

    Raises:
        RunError: the process cannot be started.
    """
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=() if lock_fd is None else (lock_fd,),
                start_new_session=True,
            )
    except OSError as error:
        raise RunError(
            f"The worker process cannot be started: {error}.", "Check memory and disk space.", code="worker-not-started"
        ) from error
    threading.Thread(target=process.wait, daemon=True).start()  # reads the exit status, so that no zombie stays
    return process.pid


class MachineLock:
    """The right to run a job on this machine; held until released or until every process that holds it is gone.

    The lock belongs to an open file. A process that is started with that file inherits the lock without a gap.

    Args:
        fd: file descriptor of the locked file; this object closes it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> MachineLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release this process's share of the lock."""
        os.close(self.fd)


def acquire_lock(runs: Path, holder: Path) -> MachineLock:
    """Take the lock of the runs folder for a job.

    Args:
        runs: folder of all runs (`settings.runs`); created when missing.
        holder: folder that the job writes, which the error of a second job names.

    Raises:
        RunError: another job holds the lock (code `machine-busy`), or the folder cannot be written.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        fd = os.open(runs / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunError(
            f"The runs folder {runs} cannot be written: {error.strerror}.",
            "Set SAFEMERGE_RUNS to a folder that you can write.",
            code="runs-not-writable",
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        busy = os.pread(fd, 4096, 0).decode("utf-8", errors="replace").strip() or "another job"
        os.close(fd)
        raise RunError(
            f"Another job is at work: {busy}.",
            "One job runs at a time: wait until it ends, or stop it first.",
            code="machine-busy",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(holder).encode("utf-8"), 0)
    return MachineLock(fd)


def is_held_for(folder: Path) -> bool:
    """Whether a job on this machine holds the lock of the runs folder around `folder`, to write `folder`."""
    try:
        fd = os.open(folder.parent / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 4096, 0).decode("utf-8", errors="replace").strip()
        return Path(holder).name == folder.name
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def inherit_lock(fd: int) -> MachineLock:
    """Take over a lock from the process that started this one.

    Raises:
        RunError: file descriptor `fd` is not open.
    """
    try:
        os.set_inheritable(fd, False)
    except OSError as error:
        raise RunError(
            f"There is no open lock file with number {fd}.", "Start the run without --lock-fd.", code="no-lock"
        ) from error
    return MachineLock(fd)
