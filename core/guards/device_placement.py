"""Loads guard models: on the GPU if they fit there beside the pool, else on the CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from core.contracts.number_formats import NumberFormat
from core.errors import GuardError, OutOfMemory
from core.models.metadata import ModelMetadata
from core.settings import Settings

if TYPE_CHECKING:
    import torch

_UNKNOWN_BATCH_SHARE = 0.3
"""Memory for a batch as a share of the weights, where the configuration does not tell its size."""
_HALF_BYTES = 2
_KEYS = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")

SMALLER_GUARD = "Use a smaller guard or phrases, which needs no model, or close other programs."


def load_beside_pool(
    name: str, metadata: ModelMetadata, settings: Settings, dtype: NumberFormat = "auto"
) -> tuple[Any, Any]:
    """Load a guard's model and tokenizer, on the device of the pool if it fits there.

    Args:
        name: of the guard, for the error message.
        metadata: of the model.
        settings: of this machine.
        dtype: number format, as `pool.dtype` of a run.

    Raises:
        ModelError: the model is unavailable or cannot be loaded.
        GuardError: the model does not fit into memory.
    """
    from core.guards.families import is_classifier
    from core.models.loading import load_classifier, load_model, load_tokenizer
    from core.models.out_of_memory import translate_oom
    from core.models.precision import choose_dtype

    device = guard_device(metadata)
    load = load_classifier if is_classifier(metadata) else load_model
    tokenizer = load_tokenizer(metadata.ref, settings)
    try:
        with translate_oom("The guard"):
            return load(metadata.ref, settings, choose_dtype(dtype, settings, device).dtype, device), tokenizer
    except OutOfMemory as error:
        message = f"The guard {name} does not fit into memory."
        raise GuardError(message, SMALLER_GUARD, code="guard-out-of-memory") from error


def guard_device(metadata: ModelMetadata) -> torch.device:
    """The GPU if the guard's weights and a batch of prompts fit into its free memory, else the CPU."""
    import torch

    from core.models.out_of_memory import free_device_bytes
    from core.models.precision import pick_device

    device = pick_device()
    if device.type == "cuda" and free_device_bytes() < needed_bytes(metadata):
        return torch.device("cpu")
    return device


def needed_bytes(metadata: ModelMetadata) -> int:
    """GPU memory for a guard's weights in a 16-bit format, and for one batch of prompts."""
    from core.guards.guard_generation import TOKEN_BUDGET
    from core.models.reply_budget import bytes_per_token

    weights = _HALF_BYTES * metadata.parameters
    config = metadata.config.get("text_config") or metadata.config
    if any(config.get(key) is None for key in _KEYS):
        return round((1 + _UNKNOWN_BATCH_SHARE) * weights)
    return weights + TOKEN_BUDGET * bytes_per_token(SimpleNamespace(**config), _HALF_BYTES)
