"""Computes attention over a packed row in chunks: each chunk of samples attends to the shared prefix and itself.

Samples of a row never attend to one another, so a mask over the whole row hides most products. Attending chunk by chunk
does not compute these products. Rows can then be long, and the shared prefix is processed less often. Each chunk uses
torch's own scaled dot-product attention; models with another attention implementation use the mask alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.models.varlen_attention import VarlenPlan, attend_varlen

_PLAIN = "sdpa"
_NAME = "sdpa_in_chunks"


class Chunks(NamedTuple):
    """How attention may split a row.

    Attributes:
        prefix: number of tokens at its start that all others may attend to.
        bounds: (start, end) of each chunk, in order; together they cover the row from 0.
    """

    prefix: int
    bounds: tuple[tuple[int, int], ...]


def chunk_row(segments: list[int], prefix: int, tokens: int) -> Chunks:
    """Split a row between samples, at the first boundary after every `tokens` tokens.

    Args:
        segments: (L) number of the sample of each token; 0 for the prefix.
        prefix: length of the shared prefix.
        tokens: minimum number of tokens of a chunk, except the last.
    """
    bounds, start = [], 0
    for place in range(prefix + 1, len(segments)):
        if segments[place] != segments[place - 1] and place - max(start, prefix) >= tokens:
            bounds.append((start, place))
            start = place
    return Chunks(prefix, (*bounds, (start, len(segments))))


def attended_pairs(chunks: Chunks) -> int:
    """Number of token pairs for which attention computes a product."""
    prefix = chunks.prefix
    return sum((end - start) * (end if start <= prefix else prefix + end - start) for start, end in chunks.bounds)


def supports_chunks(model: Any) -> bool:
    """Whether `model` uses scaled dot-product attention through transformers' attention interface."""
    return bool(getattr(model, "_supports_attention_backend", False)) and model.config._attn_implementation in (
        _PLAIN,
        _NAME,
    )


@contextmanager
def chunked_attention(model: Any) -> Iterator[None]:
    """Within the context `model` uses the `chunks` that are passed with its inputs."""
    if not supports_chunks(model):
        yield
        return
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    chunks: Chunks | None = None,
    varlen: VarlenPlan | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of (1, H, L, d) heads in one kernel or chunk by chunk, as (1, L, H, d), the layout of transformers."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if varlen is not None:
        return attend_varlen(query, key, value, varlen, options.get("scaling")), None
    if chunks is None or attention_mask is None or query.shape[2] != chunks.bounds[-1][1]:
        whole: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return whole, None
    parts = [
        sdpa_attention_forward(
            module,
            query[:, :, start:end],
            _visible(key, start, end, chunks.prefix),
            _visible(value, start, end, chunks.prefix),
            _visible(attention_mask[:, :, start:end], start, end, chunks.prefix, dim=3).contiguous(),
            **options,
        )[0]
        for start, end in chunks.bounds
    ]
    return torch.cat(parts, dim=1), None


def _visible(tensor: Tensor, start: int, end: int, prefix: int, dim: int = 2) -> Tensor:
    """The part along `dim` that tokens from `start` to `end` may attend to: the prefix and themselves."""
    if start <= prefix:
        return tensor.narrow(dim, 0, end)
    return torch.cat([tensor.narrow(dim, 0, prefix), tensor.narrow(dim, start, end - start)], dim=dim)
