"""Timing for the benchmarks: wall-clock seconds of one call, and summaries of repeated measurements."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Result = TypeVar("Result")


def timed(work: Callable[..., Result], *arguments: object) -> tuple[float, Result]:
    """Return the seconds that `work` takes, and its result."""
    started = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - started, result


def seconds_of(work: Callable[..., object], *arguments: object) -> float:
    """Return the seconds that `work` takes."""
    return timed(work, *arguments)[0]


def spread(times: Sequence[float]) -> dict[str, float]:
    """Return the median, minimum and maximum of some times, and how many there are."""
    return {"median": statistics.median(times), "min": min(times), "max": max(times), "n": len(times)}


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """Return median and maximum over the seeds with a value; the other seeds count as `missed`."""
    reached = [value for value in values if value is not None]
    return {
        "median": statistics.median(reached) if reached else None,
        "max": max(reached, default=None),
        "missed": len(values) - len(reached),
    }
