"""Tiny random models of several architectures with the tiny tokenizer, saved the way published ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny_models import CHATML, VOCABULARY, tiny_tokenizer

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "mistral": {"sliding_window": None},
    "qwen2": {"tie_word_embeddings": True},  # with biases
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8, "num_key_value_heads": 1, "tie_word_embeddings": True},
}
"""What is particular to each, by its `model_type`."""


def save_tiny(
    architecture: str,
    folder: Path,
    *,
    nudge_seed: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_size: str = "1GB",
    **config: Any,
) -> Path:
    """Save a random two-layer model; with `nudge_seed` a fine-tune of it whose embeddings are the base's.

    Args:
        architecture: a `model_type` of transformers.
        config: overrides of the configuration's values.
    """
    tokenizer = tiny_tokenizer(CHATML)
    values = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoConfig.for_model(architecture, **{**values, **ARCHITECTURES.get(architecture, {}), **config})
        model = AutoModelForCausalLM.from_config(made).float()
        for parameter in model.parameters():  # biases and norms begin as zeros and ones
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
        if nudge_seed is not None:
            torch.manual_seed(nudge_seed)
            for name, parameter in model.named_parameters():
                if "embed_tokens" not in name:
                    parameter.data.add_(torch.randn_like(parameter) * 0.02)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    return folder
