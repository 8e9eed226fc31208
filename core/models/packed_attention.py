"""Attention over a packed row in parts: each stretch of samples sees the shared prefix and itself.

A mask over the whole row hides most of what it covers: samples of a row never see one another. Attending stretch by
stretch leaves those products out, so that rows can be long and the shared prefix is read less often. It is torch's own
scaled dot-product attention, once for each stretch; models that attend in another way run on the mask alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.models.varlen_attention import VarlenPlan, attend_varlen

_PLAIN = "sdpa"
_NAME = "sdpa_in_stretches"


class Stretches(NamedTuple):
    """How a row may be cut.

    Attributes:
        prefix: tokens at its beginning that all others may see.
        bounds: (start, end) of each stretch, in order; together they are the row, and the first one begins at 0.
    """

    prefix: int
    bounds: tuple[tuple[int, int], ...]


def stretches_of(segments: list[int], prefix: int, tokens: int) -> Stretches:
    """Cut a row between samples, at the first border after every `tokens` tokens.

    Args:
        segments: (L) number of the sample of each token; those of the prefix have the number 0.
        prefix: length of the shared prefix.
        tokens: fewest tokens of a stretch, but for the last.
    """
    bounds, start = [], 0
    for place in range(prefix + 1, len(segments)):
        if segments[place] != segments[place - 1] and place - max(start, prefix) >= tokens:
            bounds.append((start, place))
            start = place
    return Stretches(prefix, (*bounds, (start, len(segments))))


def products_of(stretches: Stretches) -> int:
    """Pairs of tokens that attention looks at."""
    prefix = stretches.prefix
    return sum((end - start) * (end if start <= prefix else prefix + end - start) for start, end in stretches.bounds)


def takes_stretches(model: Any) -> bool:
    """Whether `model` attends through transformers' interface, by scaled dot-product attention."""
    return bool(getattr(model, "_supports_attention_backend", False)) and model.config._attn_implementation in (
        _PLAIN,
        _NAME,
    )


@contextmanager
def attending_in_stretches(model: Any) -> Iterator[None]:
    """Within the context, `model` heeds the `stretches` that it is given beside its inputs."""
    if not takes_stretches(model):
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
    stretches: Stretches | None = None,
    varlen: VarlenPlan | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of (1, H, L, d) heads, in one kernel or stretch by stretch; (1, L, H, d) as transformers wants it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if varlen is not None:
        return attend_varlen(query, key, value, varlen, options.get("scaling")), None
    if stretches is None or attention_mask is None or query.shape[2] != stretches.bounds[-1][1]:
        whole: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return whole, None
    parts = [
        sdpa_attention_forward(
            module,
            query[:, :, start:end],
            _seen(key, start, end, stretches.prefix),
            _seen(value, start, end, stretches.prefix),
            _seen(attention_mask[:, :, start:end], start, end, stretches.prefix, dim=3).contiguous(),
            **options,
        )[0]
        for start, end in stretches.bounds
    ]
    return torch.cat(parts, dim=1), None


def _seen(places: Tensor, start: int, end: int, prefix: int, dim: int = 2) -> Tensor:
    """Of the places along `dim`, those that tokens from `start` to `end` may see: the prefix and themselves."""
    if start <= prefix:
        return places.narrow(dim, 0, end)
    return torch.cat([places.narrow(dim, 0, prefix), places.narrow(dim, start, end - start)], dim=dim)
