"""Adapts an expert's token rows (embedding, output layer) to the base's number of rows while the expert is loaded.

With `pool.vocabulary: base` the merge has the base's rows. Rows that the base lacks are dropped, and rows that the
expert lacks are taken from the base. This happens only on request, because the expert is then measured and merged
without its own tokens. `core.preflight.vocabulary_check` reports what changes before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def fit_vocabulary(state: Mapping[str, Tensor], base: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """An expert's tensors with as many token rows as the base has; all other tensors unchanged.

    Args:
        state: tensors of the expert.
        base: tensors of the base.
        rows: number of rows of the expert's vocabulary.
    """
    import torch

    fitted = dict(state)
    for name, tensor in state.items():
        target = base.get(name)
        if target is None or tensor.shape == target.shape or tensor.shape[:1] != (rows,):
            continue
        if tensor.shape[1:] == target.shape[1:]:
            # In a compact pool the two tensors may have different 16-bit formats; this type holds both exactly.
            exact = torch.promote_types(tensor.dtype, target.dtype)
            kept, missing = tensor[: len(target)].to(exact), target[rows:].to(tensor.device, exact)
            fitted[name] = torch.cat([kept, missing])
    return fitted
