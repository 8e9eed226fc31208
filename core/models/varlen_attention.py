"""Computes attention over a packed row in one kernel: torch's variable-length flash attention, on GPUs that support it.

Each sample is one sequence. Its queries are its own tokens; its keys are the shared prefix and its own tokens. The
prefix is another sequence. No mask is needed: the kernel is causal, and aligns the last query with the last key. Where
the kernel is unavailable, or disagrees with masked attention on a small example, attention is computed in chunks
(`core.models.packed_attention`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

_TYPES = (torch.bfloat16, torch.float16)
_EXAMPLE_ENDS, _EXAMPLE_PREFIX = (12, 13, 40), 5
_TOLERANCE = 0.05


class VarlenPlan(NamedTuple):
    """The sequences of one row, on the model's device.

    Attributes:
        keys: (T,) indices in the row of all sequences' keys, one sequence after another.
        query_ends: (N + 1,) int32, 0, then the index after the last query of each sequence.
        key_ends: (N + 1,) int32, the same for `keys`.
        longest: maximum number of keys of a sequence; no sequence has more queries.
    """

    keys: Tensor
    query_ends: Tensor
    key_ends: Tensor
    longest: int


def plan_varlen(prefix: int, ends: Sequence[int], device: torch.device) -> VarlenPlan:
    """The sequences of a row.

    Args:
        prefix: length of the shared prefix.
        ends: index after the last token of each sample, in order.
        device: the model's.
    """
    keys, query_ends, key_ends = list(range(prefix)), [0], [0]
    if prefix:
        query_ends.append(prefix)
        key_ends.append(prefix)
    longest, start = prefix, prefix
    for end in ends:
        keys += [*range(prefix), *range(start, end)]
        query_ends.append(end)
        key_ends.append(len(keys))
        longest, start = max(longest, prefix + end - start), end
    bounds = torch.tensor([query_ends, key_ends], dtype=torch.int32).to(device)
    return VarlenPlan(torch.tensor(keys).to(device), bounds[0], bounds[1], longest)


def supports_varlen(model: Any) -> bool:
    """Whether `model`, which uses scaled dot-product attention, can use the kernel on its device."""
    weight = next(model.parameters())
    config = model.config.get_text_config()
    if weight.device.type != "cuda" or model.dtype not in _TYPES or hasattr(config, "kv_lora_rank"):
        return False
    if model.training and getattr(config, "attention_dropout", 0.0):
        return False
    heads = int(config.num_attention_heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return kernel_agrees(weight.device, model.dtype, heads, key_heads, width)


@cache
def kernel_agrees(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, width: int) -> bool:
    """Whether the kernel supports heads of this kind, and its result equals that of masked attention."""
    generator = torch.Generator().manual_seed(0)
    length = _EXAMPLE_ENDS[-1]
    query, key, value = (
        torch.randn(1, count, length, width, generator=generator).to(device, dtype)
        for count in (heads, key_heads, key_heads)
    )
    plan = plan_varlen(_EXAMPLE_PREFIX, _EXAMPLE_ENDS, device)
    try:
        actual = attend_varlen(query, key, value, plan, None)
    except (RuntimeError, ImportError, AttributeError, NotImplementedError, ValueError, TypeError):
        return False  # TypeError: the arguments are those of another version of torch
    mask = _example_mask(length).to(device)
    key, value = (heads_of.repeat_interleave(heads // key_heads, 1).float() for heads_of in (key, value))
    expected = F.scaled_dot_product_attention(query.float(), key, value, attn_mask=mask).transpose(1, 2)
    return bool(torch.allclose(actual.float(), expected, rtol=0, atol=_TOLERANCE))


def _example_mask(length: int) -> Tensor:
    """(L, L) True where a token (row) of the example may attend to another (column)."""
    sample = torch.bucketize(torch.arange(length), torch.tensor(_EXAMPLE_ENDS), right=True)
    same = (sample[:, None] == sample[None, :]) | (torch.arange(length)[None, :] < _EXAMPLE_PREFIX)
    return same.tril()


def attend_varlen(query: Tensor, key: Tensor, value: Tensor, plan: VarlenPlan, scale: float | None) -> Tensor:
    """Attention of (1, H, L, d) heads, as (1, L, H, d), the layout of transformers."""
    queries, keys, values = (heads[0].transpose(0, 1) for heads in (query, key, value))
    return _kernel(queries.contiguous(), keys[plan.keys], values[plan.keys], plan, scale)[None]


def _kernel(query: Tensor, key: Tensor, value: Tensor, plan: VarlenPlan, scale: float | None) -> Tensor:
    """Call torch's kernel with (T, H, d) queries, and keys and values of as many heads or fewer."""
    from torch.nn.attention.varlen import varlen_attn

    bounds = (plan.query_ends, plan.key_ends, plan.longest, plan.longest)
    options = _grouped_queries(varlen_attn)
    return cast(Tensor, varlen_attn(query, key, value, *bounds, scale=scale, window_size=(-1, 0), **options))


@cache
def _grouped_queries(function: Callable[..., object]) -> dict[str, Any]:
    """Options by which `function` accepts fewer key heads than query heads; torch 2.11 accepts them without one."""
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(function).parameters else {}
