"""Small real models for the tests: random Llamas of two layers with a trained tokenizer, and LoRA adapters on them.

They are saved the way published models are (config, safetensors, tokenizer, chat template), so tests exercise the
real loading, merging and generation code in milliseconds. Same seed, same bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = (
    "What is the capital of France? The capital of France is Paris.",
    "Which element has the symbol Au? The element with the symbol Au is gold.",
    "I'm sorry, but I can't help with that request.",
    "user assistant system question answer",
)
VOCABULARY = 352


def tiny_tokenizer(chat_template: str | None = CHATML, vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few sentences, with ChatML marks as special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    fast.chat_template = chat_template
    return fast


def save_tiny_llama(
    folder: Path,
    *,
    seed: int = 0,
    nudge_seed: int | None = None,
    nudge: float = 0.02,
    dtype: torch.dtype = torch.bfloat16,
    chat_template: str | None = CHATML,
    max_shard_size: str = "1GB",
    **config: Any,
) -> Path:
    """Save a random two-layer Llama with tokenizer under `folder` and return it.

    Args:
        seed: of the base weights; models of one pool share it.
        nudge_seed: adds normal noise of scale `nudge` from this seed: a fine-tune of the model with the same `seed`.
        config: overrides of `LlamaConfig` values.
    """
    tokenizer = tiny_tokenizer(chat_template)
    values: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**values, **config}))
        if nudge_seed is not None:
            torch.manual_seed(nudge_seed)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * nudge)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_lora(folder: Path, base: Path, *, seed: int = 1, rank: int = 4, scale: float = 0.1) -> Path:
    """Save a random LoRA adapter on the attention projections of the model in `base`."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"]))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn_like(parameter) * scale)
    adapted.save_pretrained(folder)
    return folder


def copy_model(source: Path, target: Path) -> Path:
    """A copy of a saved model that a test may spoil."""
    shutil.copytree(source, target)
    return target
