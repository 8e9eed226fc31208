"""Limits of the machine: copy bandwidth, matrix rate, transfers between host and device, hashing, random bits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from benchmarks.gpu.sections import Check, Figures

_GIB = 1 << 30
_SHAPES = ((8192, 8192, 8192), (1024, 4096, 14336), (4096, 4096, 14336))
_TINY_SHAPES = ((256, 256, 256),)
_PRODUCTS = 10


def measure_limits(check: Check, figures: Figures) -> None:
    """Measure all limits; rates are in 1e9 bytes or 1e12 floating-point operations per second."""
    figures["copy_gbs"] = _copy_rate(check)
    shapes: Sequence[tuple[int, int, int]] = _SHAPES if check.on_gpu and not check.tiny else _TINY_SHAPES
    rates = {shape: _matrix_rate(check, *shape) for shape in shapes}
    figures["matmul_tflops"] = {"x".join(map(str, shape)): rate for shape, rate in rates.items()}
    figures["best_matmul_tflops"] = max(rates.values())
    if check.on_gpu and not check.tiny:
        _measure_transfers(check, figures)
    blob = bytes(1 << 24 if check.tiny else 1 << 28)
    figures["sha256_gbs"] = len(blob) / check.seconds(lambda: hashlib.sha256(blob).digest()) / 1e9


def _copy_rate(check: Check) -> float:
    """Return the rate of a copy on the device: 1e9 bytes read and written per second."""
    size = 1 << (32 if check.on_gpu and not check.tiny else 22)
    source = torch.zeros(size, dtype=torch.uint8, device=check.device)
    target = source.clone()
    return 2 * size / check.seconds(lambda: target.copy_(source), rounds=10) / 1e9


def _matrix_rate(check: Check, rows: int, inner: int, columns: int) -> float:
    """Return the rate of a bfloat16 matrix product: 1e12 floating-point operations per second."""
    x, weight = (
        torch.randn(shape, dtype=torch.bfloat16, device=check.device) for shape in ((rows, inner), (columns, inner))
    )

    def multiply() -> None:
        for _ in range(_PRODUCTS):
            F.linear(x, weight)

    multiply()
    return 2 * _PRODUCTS * rows * inner * columns / check.seconds(multiply, rounds=5) / 1e12


def _measure_transfers(check: Check, figures: Figures) -> None:
    """Measure copies of 1 GiB between host and device, from pageable and from pinned memory."""
    host = torch.zeros(_GIB, dtype=torch.uint8)
    device = host.to(check.device)
    pinned: list[torch.Tensor] = []
    figures["host_to_device_pageable_gbs"] = _GIB / check.seconds(lambda: device.copy_(host), rounds=3) / 1e9
    figures["device_to_host_pageable_gbs"] = _GIB / check.seconds(device.cpu, rounds=3) / 1e9
    figures["pin_s_per_gib"] = check.seconds(lambda: pinned.append(host.pin_memory()))
    seconds = check.seconds(lambda: device.copy_(pinned[0], non_blocking=True), rounds=3)
    figures["host_to_device_pinned_gbs"] = _GIB / seconds / 1e9
