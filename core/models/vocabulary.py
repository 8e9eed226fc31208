"""Adapts an expert's token rows (embedding, output layer) to those of the base while the expert is loaded.

With `pool.vocabulary: base` the merge has the base's rows. Rows that the base lacks are dropped, and rows that the
expert lacks are taken from the base. This happens only on request, because the expert is then measured and merged
without its own tokens. Where one id stands for different tokens, the base's row is always kept: a mean of two tokens'
values means neither. `core.preflight.vocabulary_check` reports what changes before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


def token_tensors(model: Any) -> list[str]:
    """Names of a model's tensors with one row per token: the embedding, and an output layer of its own."""
    layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    own = {id(tensor) for layer in layers for tensor in layer.parameters(recurse=False)}
    return [name for name, tensor in model.named_parameters() if id(tensor) in own]


def keep_rows(
    state: Mapping[str, Tensor], base: Mapping[str, Tensor], names: Sequence[str], rows: Sequence[int]
) -> dict[str, Tensor]:
    """An expert's tensors with the base's values in the given rows; all other tensors unchanged.

    Args:
        state: tensors of the expert, with as many rows as the base.
        base: tensors of the base.
        names: of the tensors with one row per token.
        rows: ids of tokens; those beyond the base's rows are ignored.
    """
    import torch

    kept = dict(state)
    for name in names:
        own, target = state.get(name), base.get(name)
        chosen = [row for row in rows if target is not None and row < len(target)]
        if own is None or target is None or own.shape != target.shape or not chosen:
            continue
        exact = torch.promote_types(own.dtype, target.dtype)
        kept[name] = own.to(exact, copy=True)
        kept[name][chosen] = target[chosen].to(own.device, exact)
    return kept
