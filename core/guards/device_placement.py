"""Guard models into memory: beside the pool on the GPU where there is room, else on the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.errors import GuardError, OutOfMemory
from core.models.metadata import ModelMetadata
from core.settings import Settings

if TYPE_CHECKING:
    import torch

_SPARE = 1.3
"""Room for a guard's batches beside its weights."""

_SMALLER = "Take a smaller guard, or phrases, which needs no memory; close other programs."


def loaded_beside_pool(name: str, metadata: ModelMetadata, settings: Settings) -> tuple[Any, Any]:
    """A guard's model and tokenizer; its weights go where the pool computes if they fit there.

    Raises:
        ModelError: they cannot be had or opened.
        GuardError: they do not fit into memory.
    """
    from core.guards.families import is_classifier
    from core.models.loading import load_classifier, load_model, load_tokenizer
    from core.models.out_of_memory import translate_oom
    from core.models.precision import fast_dtype

    device = guard_device(metadata)
    load = load_classifier if is_classifier(metadata) else load_model
    tokenizer = load_tokenizer(metadata.ref, settings)
    try:
        with translate_oom("The guard"):
            return load(metadata.ref, settings, fast_dtype(device), device), tokenizer
    except OutOfMemory as error:
        raise GuardError(f"{name} does not fit into memory.", _SMALLER) from error


def guard_device(metadata: ModelMetadata) -> torch.device:
    """The GPU when the guard's weights fit beside what is there already, else the processor."""
    import torch

    from core.models.out_of_memory import free_device_bytes
    from core.models.precision import pick_device

    device = pick_device()
    if device.type == "cuda" and free_device_bytes() < _SPARE * 2 * metadata.parameters:
        return torch.device("cpu")
    return device
