"""Checks that a model computes finite values in float16, whose largest value is 65,504.

GPUs without bfloat16 units (T4, V100) compute in float16. Some models that were trained in bfloat16 have weights or
hidden states above its limit; their outputs would be infinite or NaN, and no figure about them would be true.
"""

from __future__ import annotations

from typing import Any

from core.errors import ModelError

_TOKENS = 48
_HINT = "Set pool.dtype (--dtype) to float32, which needs twice the memory, or use a GPU with bfloat16 (A10, L4, A100)."


def refuse_overflow(model: Any, name: str) -> None:
    """Raise an error if a model in float16 has weights, or computes outputs, that are not finite.

    Models in other formats are not examined. One short forward pass is run.

    Args:
        model: a loaded transformers model.
        name: of the model, for the message.

    Raises:
        ModelError: a value is not finite (code `float16-overflow`).
    """
    import torch

    if model.dtype != torch.float16:
        return
    for key, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise _overflow(f"{key} of {name} has weights above the largest float16 value, 65,504.")
    if not _outputs_are_finite(model):
        raise _overflow(f"{name} computes values above the largest float16 value, 65,504.")


def _outputs_are_finite(model: Any) -> bool:
    """Whether all outputs for tokens from the whole vocabulary are finite."""
    import torch

    rows = int(model.config.get_text_config().vocab_size)
    ids = torch.linspace(0, rows - 1, min(_TOKENS, rows), device=model.device).long()[None]
    with torch.inference_mode():
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return bool(torch.isfinite(output.logits).all())


def _overflow(message: str) -> ModelError:
    return ModelError(message, _HINT, code="float16-overflow")
