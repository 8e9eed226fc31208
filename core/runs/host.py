"""Which host a process runs on, as far as it can be told from here.

A process number means something only on its own host, and there only inside its PID namespace (a container usually has
its own). A viewer elsewhere, which may share the run folder over a network, cannot say whether such a process lives.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from core.settings import SPACE_PREFIX, machine_name

View = Literal["here", "ended", "elsewhere"]


class Host(NamedTuple):
    """Where a process runs; fields are empty where the system has no such value.

    Attributes:
        name: host name, or the Space's id.
        machine: the installed system (`/etc/machine-id`), which a restart keeps.
        boot: this start of the kernel.
        pid_namespace: the set of processes that see each other's numbers.
    """

    name: str = ""
    machine: str = ""
    boot: str = ""
    pid_namespace: str = ""


@cache
def this_host() -> Host:
    """The host of this process."""
    if sys.platform != "linux":
        return Host(machine_name())
    namespace = ""
    with suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return Host(machine_name(), _read("/etc/machine-id"), _read("/proc/sys/kernel/random/boot_id"), namespace)


def view_of(host: Host) -> View:
    """Whether processes of `host` can be seen from this process.

    Returns:
        `here` when they can, also for a mark without a host, as older versions wrote it; `ended` when that host has
        restarted since, so that none of its processes lives; `elsewhere` when nothing can be said about them.
    """
    here = this_host()
    if host == Host() or _same(host, here):
        return "here"
    if host.name != here.name:
        return "elsewhere"
    rebooted = bool(host.machine) and host.machine == here.machine and host.boot != here.boot
    return "ended" if rebooted or host.name.startswith(SPACE_PREFIX) else "elsewhere"


def _same(host: Host, here: Host) -> bool:
    return (host.name, host.boot, host.pid_namespace) == (here.name, here.boot, here.pid_namespace)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
