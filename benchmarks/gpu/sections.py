"""Sections of the GPU benchmark: each is measured separately, and a section that fails does not stop the others."""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Figures = dict[str, Any]
_TRACEBACK_LINES = 8
_MESSAGE_LENGTH = 300


class NotRun(Exception):
    """A section cannot run on this machine, or too little time is left; the message gives the reason."""


@dataclass
class Check:
    """The measured device, the time that is left, and the figures so far.

    Attributes:
        device: the device on which pools are built and measured.
        budget_s: seconds after which no further section starts.
        tiny: whether the models are tiny: the code runs, and nothing is measured.
        sections: figures by section.
        errors: type and message of the error of each section that failed.
        not_run: reason of each section that was left out.
    """

    device: torch.device
    budget_s: float
    tiny: bool
    sections: dict[str, Figures] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def spent_s(self) -> float:
        """Seconds since the check started."""
        return time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget_s - self.spent_s

    def section(self, name: str, work: Callable[[Figures], None], need_s: float = 0.0) -> None:
        """Run one section and store its figures, its error, or the reason why it was left out.

        Args:
            name: the section's name.
            work: stores its results in the figures.
            need_s: seconds of the budget that must be left.
        """
        figures = self.sections[name] = {}
        try:
            if self.left_s < need_s:
                raise NotRun(f"It needs {need_s:.0f} s, and {max(0.0, self.left_s):.0f} s of the budget are left.")
            self._reset_memory()
            work(figures)
        except NotRun as reason:
            self.not_run[name] = str(reason)
        except Exception as error:  # noqa: BLE001 - the boundary of a section: the others still run
            self.errors[name] = f"{type(error).__name__}: {error}"[:_MESSAGE_LENGTH]
            traceback.print_exc(limit=_TRACEBACK_LINES, file=sys.stderr)
        if self.on_gpu:
            figures["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        shown = {key: value for key, value in figures.items() if "profile" not in key}
        outcome = self.errors.get(name) or self.not_run.get(name) or shown
        print(f"[{self.spent_s:6.1f} s] {name}: {outcome}", file=sys.stderr, flush=True)

    def _reset_memory(self) -> None:
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[..., object], *arguments: object, rounds: int = 1) -> float:
        """Return the median of the seconds that `work` takes, until the device has finished."""
        times = []
        for _ in range(rounds):
            self.synchronize()
            started = time.perf_counter()
            work(*arguments)
            self.synchronize()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def profile(self, work: Callable[[], object]) -> dict[str, list[float]]:
        """Return the twelve slowest operators, with the number of calls and the milliseconds of each."""
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_gpu else [])]
        with profile(activities=activities) as recorded:
            work()
            self.synchronize()
        key = "self_device_time_total" if self.on_gpu else "self_cpu_time_total"
        slowest = sorted(recorded.key_averages(), key=lambda event: -getattr(event, key))[:12]
        return {str(event.key)[:60]: [event.count, round(getattr(event, key) / 1e3, 3)] for event in slowest}
