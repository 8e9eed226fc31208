"""Time per entry to compute and apply DARE's masks of each version, on the same values."""

from __future__ import annotations

import torch

from benchmarks.gpu.sections import Check, Figures
from core.merging.arithmetic import piece_entries
from core.merging.counter_masks import numbers_at
from core.merging.dare import random_drop
from core.merging.recipes import FIRST_MASK_VERSION, LATEST_MASK_VERSION

_PIECES = 8
_ROUNDS = 7
_COMPARED = (1 << 20) + 3
_DENSITY = 0.5


def measure_masks(check: Check, figures: Figures) -> None:
    """Time both versions on pieces of a merge's size, and compare the bits of the device with those of the CPU."""
    size, count = piece_entries(check.device.type), 1 if check.tiny else _PIECES
    pieces = torch.randn(count, size, device=check.device)

    def draw(version: int) -> None:
        keep = random_drop(version, 0, "random/expert", "weight", _DENSITY)
        for values in pieces:
            keep(values)

    times: dict[int, list[float]] = {version: [] for version in (FIRST_MASK_VERSION, LATEST_MASK_VERSION)}
    for _ in range(2 if check.tiny else _ROUNDS):  # alternately, so that both run under the same load of the machine
        for version, spent in times.items():
            spent.append(check.seconds(draw, version))
    best = {version: min(spent) for version, spent in times.items()}
    for version, seconds in best.items():
        figures[f"version_{version}_ns_per_entry"] = seconds / pieces.numel() * 1e9
    figures["latest_over_first"] = best[LATEST_MASK_VERSION] / best[FIRST_MASK_VERSION]
    actual, expected = (numbers_at("check", 1, _COMPARED, device) for device in (check.device, torch.device("cpu")))
    figures["same_bits"] = torch.equal(actual.cpu(), expected)
