"""Chooses the device and the number format (bfloat16, float16 or float32) in which models generate and are scored.

One rule holds for runs, commands and chat. `auto` takes bfloat16, which needs half the memory, unless float32 is
clearly faster. A GPU without bfloat16 units (T4, V100) only emulates bfloat16, which is slow: `auto` takes float16
there, and each loaded model is checked for overflow (`core.models.overflow_check`). A processor's flags do not decide
it: some report bfloat16 and are slow at it. So its speed is measured, once per machine, and stored under
`settings.home`: two runs of one spec on one machine then use the same format. Delete the folder `number-format` there
to measure again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch

from core.contracts.number_formats import NumberFormat
from core.errors import SafeMergeError
from core.settings import Settings

FOLDER = "number-format"
"""Folder below `settings.home` with one measurement per processor, torch version and number of threads."""

_SIZE = 512
_WARM_UP = 3
_ROUNDS = 15
_MOST_SLOWDOWN = 1.25
"""bfloat16 may take this many times as long as float32 before `auto` takes float32."""


class ChosenFormat(NamedTuple):
    """A number format, and why it was chosen, as a phrase for the log and the preflight table."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """The format as logs write it: `bfloat16`, `float16` or `float32`."""
        return str(self.dtype).removeprefix("torch.")


class Speed(NamedTuple):
    """Median seconds of one matrix product on the processor in each format."""

    bfloat16_s: float
    float32_s: float


def pick_device() -> torch.device:
    """The GPU when there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(
    requested: NumberFormat, settings: Settings, device: torch.device, *, logged: str | None = None
) -> ChosenFormat:
    """The number format for models on `device`.

    Args:
        requested: of the spec or the command line; `auto` decides for this machine.
        settings: where the measurement of a processor is stored.
        device: where the model computes.
        logged: format that a resumed run has used so far; it is kept.

    Raises:
        SafeMergeError: the processor's measurement cannot be stored under `settings.home`.
    """
    if logged:
        return ChosenFormat(getattr(torch, logged), "kept from the run's log")
    if requested != "auto":
        return ChosenFormat(getattr(torch, requested), "set by the user")
    if device.type != "cpu":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ChosenFormat(torch.bfloat16, "the GPU supports bfloat16")
        return ChosenFormat(torch.float16, "the GPU only emulates bfloat16; models are checked for overflow")
    speed = stored_speed(settings.home / FOLDER)
    ratio = speed.bfloat16_s / speed.float32_s
    dtype = torch.bfloat16 if ratio <= _MOST_SLOWDOWN else torch.float32
    return ChosenFormat(dtype, f"bfloat16 takes {ratio:.2g} times as long as float32, measured once on this machine")


def stored_speed(folder: Path) -> Speed:
    """The speed of this machine's processor; measured and stored in `folder` by the first process that asks.

    Processes that ask at the same time wait for the first, so all of them get the same figures. A damaged file is
    measured again.

    Raises:
        SafeMergeError: `folder` cannot be written.
    """
    from filelock import FileLock

    machine = _machine()
    path = folder / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"
    if known := _read_speed(path):
        return known
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if known := _read_speed(path):
                return known
            speed = measure_speed()
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps({"machine": machine, **speed._asdict()}, indent=2) + "\n", encoding="utf-8")
            draft.replace(path)
    except OSError as error:
        raise SafeMergeError(
            f"The speed of this machine's number formats cannot be stored in {folder}: {error.strerror}.",
            "Set SAFEMERGE_HOME to a folder that can be written, or set pool.dtype (--dtype) to bfloat16 or float32.",
            code="home-not-writable",
        ) from error
    return speed


def measure_speed() -> Speed:
    """Median seconds of a square matrix product in each format; rounds alternate, so that load hits both alike."""
    operands = {dtype: torch.ones(_SIZE, _SIZE, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)}
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in operands}
    for _ in range(_WARM_UP + _ROUNDS):
        for dtype, matrix in operands.items():
            started = time.perf_counter()
            matrix @ matrix
            seconds[dtype].append(time.perf_counter() - started)
    medians = {dtype: statistics.median(values[_WARM_UP:]) for dtype, values in seconds.items()}
    return Speed(medians[torch.bfloat16], medians[torch.float32])


def _machine() -> str:
    """What the speed depends on: processor and its instruction sets, torch's version and number of threads."""
    name, flags = _processor()
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name} ({capability}, {flags}), torch {torch.__version__}, {torch.get_num_threads()} threads"


def _processor() -> tuple[str, str]:
    """Name of the processor's model, and a short hash of its flags; the flags only where Linux lists them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), "flags unknown"
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    listed = " ".join(sorted(flags[1].split())) if flags else ""
    return name[1] if name else platform.machine(), f"flags {hashlib.sha256(listed.encode()).hexdigest()[:8]}"


def _read_speed(path: Path) -> Speed | None:
    """The stored figures; None where the file is missing or damaged."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        speed = Speed(float(row["bfloat16_s"]), float(row["float32_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return speed if min(speed) > 0 else None
