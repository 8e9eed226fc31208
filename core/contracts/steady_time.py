"""The time that events carry: the time of the day at the start of the process, and the seconds that have passed since.

The system's clock may be set or corrected during a run of hours. The difference of two events of one process is then
still the time between them.
"""

from __future__ import annotations

import time


def _passed() -> float:
    """Seconds since the machine started, with those in which it slept where the system counts them."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


_STARTED = time.time() - _passed()


def steady_time() -> float:
    """Seconds since the epoch, which within a process advance at the pace of time, whatever the system's clock says."""
    return _STARTED + _passed()
