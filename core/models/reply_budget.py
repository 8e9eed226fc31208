"""Maximum number of tokens in one batch of replies: fixed on a CPU, chosen by the free memory on a GPU."""

from __future__ import annotations

from typing import Any

from core.models.out_of_memory import free_device_bytes

DEFAULT_TOKEN_BUDGET = 6144
_MOST_DOUBLINGS = 4
_SHARE = 0.7
"""Share of the free memory that a batch may use; a batch that does not fit anyway is split."""
_HIDDEN_STATES, _INNER_STATES = 8, 3  # states of a prompt's token in memory at once: of the model's and the MLP's width
_LOGITS_BYTES, _SHORTEST_ROW = 10, 512  # logits are computed per row: once in the model's format, twice in float32


def token_budget(model: Any, *, sampled: bool) -> int:
    """Maximum number of tokens (prompt and reply, padded) in one batch.

    On a GPU it is the default, doubled as often as the free memory allows. Small changes of the free memory thus leave
    the batches unchanged. Sampled replies depend on their batch, so they keep the default: the same seed then gives the
    same replies.

    Args:
        model: the language model, on the device on which it replies.
        sampled: whether replies are sampled.
    """
    if model.device.type != "cuda" or sampled:
        return DEFAULT_TOKEN_BUDGET
    size = bytes_per_token(model.config.get_text_config(), model.dtype.itemsize)
    return fitting_budget(free_device_bytes(), size)


def fitting_budget(free_bytes: int, token_bytes: int, default: int = DEFAULT_TOKEN_BUDGET) -> int:
    """The default budget, doubled as often as tokens of `token_bytes` fit into the usable share of the free memory."""
    doublings = 0
    while doublings < _MOST_DOUBLINGS and (default << doublings + 1) * token_bytes <= _SHARE * free_bytes:
        doublings += 1
    return default << doublings


def bytes_per_token(config: Any, itemsize: int) -> int:
    """Memory of one token of a batch: keys and values of all layers, one layer's states, and a share of the logits.

    Args:
        config: the language model's.
        itemsize: bytes of one number in the model's format.
    """
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or hidden // heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    cached = 2 * int(config.num_hidden_layers) * key_heads * width
    repeated = 2 * heads * width  # keys and values of one layer, for every head
    states = _HIDDEN_STATES * hidden + _INNER_STATES * inner
    return itemsize * (cached + repeated + states) + int(config.vocab_size) * _LOGITS_BYTES // _SHORTEST_ROW
