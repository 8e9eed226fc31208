"""Length of the rows that training pairs are packed into: fixed on a CPU, chosen by the free memory on a GPU.

A long row repeats the shared prefix less often and fills the GPU's matrix units. Only variable-length attention
(`core.models.varlen_attention`) takes as much time per token in a long row as in a short one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from core.models.out_of_memory import free_device_bytes
from core.models.packed_attention import supports_chunks
from core.models.packing import DEFAULT_ROW_TOKENS, sliding_window
from core.models.reply_budget import fitting_budget
from core.models.varlen_attention import supports_varlen

LONGEST_ROW = 8192
_LEFT_FREE = 0.15  # share of the GPU's memory, the same as `core.models.memory` leaves
_F32 = 4
_HIDDEN_STATES, _INNER_STATES = 8, 3  # states of a token in memory at once: of the model's and the MLP's width


def row_tokens(model: Any) -> int:
    """Maximum number of tokens in a row that `model` scores.

    On a GPU it is the default, doubled as often as the free memory allows, so that small changes of it leave the rows
    unchanged. A row that does not fit anyway is run in parts.
    """
    if model.device.type != "cuda" or not (supports_chunks(model) and supports_varlen(model)):
        return DEFAULT_ROW_TOKENS
    if sliding_window(model) is not None:  # rows longer than the window need a mask
        return DEFAULT_ROW_TOKENS
    config = model.config.get_text_config().to_dict()
    total = int(torch.cuda.get_device_properties(model.device).total_memory)
    return fitting_rows(free_device_bytes(), total, token_bytes(config, model.dtype.itemsize))


def fitting_rows(free_bytes: int, total_bytes: int, size: int) -> int:
    """The number of tokens of `size` bytes in a row.

    Args:
        free_bytes: memory that a row and what stays free may take.
        total_bytes: memory of the device, of which a share stays free.
        size: result of `token_bytes`.
    """
    spare = int(free_bytes - _LEFT_FREE * total_bytes)
    return min(LONGEST_ROW, fitting_budget(spare, max(1, size), DEFAULT_ROW_TOKENS))


def token_bytes(config: Mapping[str, Any], itemsize: int) -> int:
    """Memory of one token of a row: one layer's states and the logits, once in the model's format, twice in float32.

    Args:
        config: keys of the language model's `config.json`.
        itemsize: bytes of one number in the model's format.
    """
    hidden, inner = int(config.get("hidden_size") or 0), int(config.get("intermediate_size") or 0)
    states = _HIDDEN_STATES * hidden + _INNER_STATES * inner
    return itemsize * states + int(config.get("vocab_size") or 0) * (itemsize + 2 * _F32)
