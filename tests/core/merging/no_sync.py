"""Checks, without a GPU, that code never synchronizes with the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_WAITING = (
    "_local_scalar_dense",  # item, int, float, bool
    "nonzero",
    "masked_select",
    "bincount",
    "unique",
    "_unique2",
    "equal",
    "is_nonzero",
    "repeat_interleave",
)
_LITERAL = "lift_fresh"
"""The operator that `torch.tensor` calls for Python numbers; its tensors stay on the host."""


class NoSync(TorchDispatchMode):
    """Raises AssertionError for every operator whose result's size or value the CPU needs immediately.

    All tensors count as tensors of the device, except those made from Python numbers, and results computed from them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._on_host: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        tensors = [value for value in args if isinstance(value, Tensor)]
        on_host = bool(tensors) and all(any(value is known for known in self._on_host) for value in tensors)
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if (masked or name in _WAITING) and not on_host:
            raise AssertionError(f"{name} waits for the device")
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and (on_host or name == _LITERAL):
            self._on_host.append(result)
        return result
