"""The number format that a model's weights are saved in, which may be narrower than the one that it computes in.

A pool of bfloat16 models computes in float32 on machines that are slow in bfloat16. Its merges are saved in bfloat16
all the same. The live model then holds values that bfloat16 represents exactly, so that saved weights are scored ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_MARK = "safemerge_saved_dtype"


def common_format(configs: Iterable[Any]) -> torch.dtype | None:
    """bfloat16 if the configurations of all models name it; None for all other pools."""
    return torch.bfloat16 if {config.dtype for config in configs} == {torch.bfloat16} else None


def set_saved_format(model: Any, dtype: torch.dtype | None) -> None:
    """Let the weights of a live model be hashed and saved in `dtype`; None = in the format that it computes in."""
    setattr(model, _MARK, dtype if dtype != model.dtype else None)


def saved_format(model: Any) -> torch.dtype | None:
    """The format that `set_saved_format` chose; None where it is the one that the model computes in."""
    found = getattr(model, _MARK, None)
    return found if isinstance(found, torch.dtype) else None


def in_saved_format(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a live model in the format that they are saved in; tied tensors stay one tensor."""
    dtype = saved_format(model)
    if dtype is None:
        return state
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    cast: dict[int, Tensor] = {}
    return {
        name: cast.setdefault(tensor.data_ptr(), tensor.to(dtype)) if name in parameters else tensor
        for name, tensor in state.items()
    }
