"""Converts a Llama in GGUF format to a transformers folder: config, bfloat16 safetensors, tokenizer, chat template.

transformers reads GGUF too, but it parses each of the 98,000 vocabulary entries several times (27 s for a 135M model).
This module reads each field once (about 4 s) and gives the same tensors bit for bit. Quantized weights are dequantized
to float32 and rounded to bfloat16. Only byte-level BPE vocabularies are supported, which the demo's base has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from gguf import GGUFReader
    from tokenizers import Tokenizer

OnTensor = Callable[[int, int], None]

_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL_TOKEN = 3
_SPLITS_DIGITS = ("smollm",)


def convert_gguf(source: Path, target: Path, on_tensor: OnTensor | None = None) -> None:
    """Write the Llama in `source` as a transformers folder.

    Args:
        source: the GGUF file.
        target: an existing folder.
        on_tensor: called with (tensors done, tensors in total) after each tensor.

    Raises:
        ModelError: not a GGUF file, or not a Llama with a byte-level BPE vocabulary.
    """
    reader = _open(source)
    config = _config(reader)
    _write_weights(reader, config, target, on_tensor)
    _write_json(target / "config.json", config)
    _write_json(target / "generation_config.json", {key: config[key] for key in config if key.endswith("_token_id")})
    _write_tokenizer(reader, target)


def _open(source: Path) -> GGUFReader:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(source)
    except (OSError, ValueError) as error:
        message = f"{source.name} is not a readable GGUF file: {error}."
        raise ModelError(message, "Download the file again.", code="not-gguf") from error
    found = (_value(reader, "general.architecture"), _value(reader, "tokenizer.ggml.model"))
    if found != ("llama", "gpt2"):
        message = f"{source.name} is {found[0]} with a {found[1]} vocabulary."
        raise ModelError(message, "Only Llama with a BPE vocabulary is supported.", code="unsupported-gguf")
    return reader


def _value(reader: GGUFReader, key: str, default: Any = None) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _config(reader: GGUFReader) -> dict[str, Any]:
    """The `config.json` of the `LlamaForCausalLM` in the file."""
    heads = _value(reader, "llama.attention.head_count")
    hidden = _value(reader, "llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_size": hidden,
        "head_dim": hidden // heads,
        "intermediate_size": _value(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _value(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _value(reader, "llama.attention.head_count_kv", heads),
        "max_position_embeddings": _value(reader, "llama.context_length"),
        "rms_norm_eps": _value(reader, "llama.attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": _value(reader, "llama.rope.freq_base", 10_000.0)},
        "vocab_size": next(int(tensor.shape[1]) for tensor in reader.tensors if tensor.name == "token_embd.weight"),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "bos_token_id": _value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _value(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _value(reader, "tokenizer.ggml.padding_token_id"),
    }


def _write_weights(reader: GGUFReader, config: dict[str, Any], target: Path, on_tensor: OnTensor | None) -> None:
    import torch
    from gguf.quants import dequantize
    from safetensors.torch import save_file

    state: dict[str, torch.Tensor] = {}
    for number, tensor in enumerate(reader.tensors, start=1):
        weights = dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            weights = _unpermute(weights, config["num_attention_heads"])
        elif ".attn_k." in tensor.name:
            weights = _unpermute(weights, config["num_key_value_heads"])
        state[_tensor_name(tensor.name)] = torch.tensor(weights).to(torch.bfloat16)
        if on_tensor is not None:
            on_tensor(number, len(reader.tensors))
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})


def _tensor_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    parts = name.split(".")
    prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
    if parts[-2] not in _TENSORS:
        message = f"The GGUF file has a tensor {name} that a Llama does not have."
        raise ModelError(message, "Only plain Llama models are supported.", code="unsupported-gguf")
    return f"{prefix}{_TENSORS[parts[-2]]}.{parts[-1]}"


def _unpermute(weights: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's interleaving of each head's rotary halves (its `convert_hf_to_gguf`, `permute`)."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, half, 2, *weights.shape[1:]).swapaxes(2, 1).reshape(weights.shape)


def _write_tokenizer(reader: GGUFReader, target: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokens = _value(reader, "tokenizer.ggml.tokens")
    marks = {
        f"{name}_token": tokens[token]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if (token := _value(reader, f"tokenizer.ggml.{key}_token_id")) is not None
    }
    fast = PreTrainedTokenizerFast(tokenizer_object=_bpe(reader, tokens), **marks)
    fast.chat_template = _value(reader, "tokenizer.chat_template")
    fast.save_pretrained(target)


def _bpe(reader: GGUFReader, tokens: list[str]) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    merges = [tuple(merge.split(" ", 1)) for merge in _value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    spaced = bool(_value(reader, "tokenizer.ggml.add_space_prefix", False))
    alone = _value(reader, "tokenizer.ggml.pre") in _SPLITS_DIGITS
    digits = [pre_tokenizers.Digits(individual_digits=True)] if alone else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=spaced)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = _value(reader, "tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
