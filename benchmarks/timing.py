"""How the benchmarks time: wall-clock seconds of one call, and several of them in one object."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")


def timed(work: Callable[..., Result], *arguments: object) -> tuple[float, Result]:
    """Seconds that `work` takes, and what it returns."""
    started = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - started, result


def seconds_of(work: Callable[..., object], *arguments: object) -> float:
    """Seconds that `work` takes."""
    return timed(work, *arguments)[0]


def spread(times: Sequence[float]) -> dict[str, float]:
    """Median, least and most seconds, and of how many runs."""
    return {"median": statistics.median(times), "min": min(times), "max": max(times), "n": len(times)}
