"""Which device and number format a run scores in: measured, not assumed, as some processors only emulate bfloat16."""

from __future__ import annotations

import time

import torch

_SIZE = 512
_ROUNDS = 8
_SLOWER = 1.25


def pick_device() -> torch.device:
    """The GPU when there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, which takes half the memory, unless this machine multiplies it clearly slower than float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _matmul_s(torch.bfloat16) <= _SLOWER * _matmul_s(torch.float32) else torch.float32


def _matmul_s(dtype: torch.dtype) -> float:
    """Best seconds of a square matrix product on the processor."""
    a, b = torch.ones(_SIZE, _SIZE, dtype=dtype), torch.ones(_SIZE, _SIZE, dtype=dtype)
    spent = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        a @ b
        spent.append(time.perf_counter() - started)
    return min(spent)
