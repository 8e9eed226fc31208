"""A check, without a GPU, that code never waits for the device."""

from __future__ import annotations

from typing import Any

import torch
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


class NoSync(TorchDispatchMode):
    """Raises for every operator after which the processor needs the size or the value of a result at once."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if masked or name in _WAITING:
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))
