"""Tensor names of published checkpoints are mapped as transformers maps them when it loads, and back when it saves."""

from __future__ import annotations

from typing import Any

import pytest

from core.models.class_tensors import can_be_saved, expected_shapes, map_names, unlike_configuration

LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 16,
}
GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 8, "vocab_size": 16}
NEOX = {**LLAMA, "model_type": "gpt_neox"}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 2}
QWEN3_MOE = {**LLAMA, "model_type": "qwen3_moe", "num_experts": 2, "moe_intermediate_size": 8, "head_dim": 4}


@pytest.mark.parametrize(
    ("config", "buffers"),
    [
        (LLAMA, ["model.layers.1.self_attn.rotary_emb.inv_freq"]),
        (GPT2, ["h.1.attn.bias", "transformer.h.1.attn.masked_bias"]),
        (NEOX, ["gpt_neox.layers.1.attention.bias", "gpt_neox.layers.1.attention.masked_bias"]),
        (NEOX, ["gpt_neox.layers.1.attention.rotary_emb.inv_freq"]),
    ],
)
def test_computed_buffers_are_left_out(config: dict[str, Any], buffers: list[str]) -> None:
    assert map_names(buffers, config).names == {}


def test_unknown_tensors_stay_visible() -> None:
    assert map_names(["model.layers.1.extra.weight"], LLAMA).names == {
        "model.layers.1.extra.weight": "model.layers.1.extra.weight"
    }


def test_prefixes_are_added_and_removed() -> None:
    names = map_names(["h.1.attn.c_attn.weight", "transformer.wte.weight"], GPT2).names
    assert list(names.values()) == ["transformer.h.1.attn.c_attn.weight", "transformer.wte.weight"]
    assert map_names(["layers.1.mlp.up_proj.weight", "norm.weight"], LLAMA).names["norm.weight"] == "model.norm.weight"


def test_ties_follow_the_configuration_and_the_class() -> None:
    tied = map_names(["wte.weight", "h.1.ln_1.bias"], GPT2)
    assert tied.ties and tied.heads == {"lm_head.weight": "transformer.wte.weight"}
    assert not map_names([], {**LLAMA, "num_hidden_layers": 1}).ties
    assert map_names([], {**LLAMA, "num_hidden_layers": 1, "tie_word_embeddings": True}).ties
    gemma = {**LLAMA, "model_type": "gemma2", "num_hidden_layers": 1, "head_dim": 4}
    assert map_names([], gemma).ties, "Gemma ties unless its configuration says otherwise"


@pytest.mark.parametrize("config", [LLAMA, GPT2, NEOX, MIXTRAL, QWEN3_MOE], ids=lambda one: str(one["model_type"]))
def test_families_can_be_saved(config: dict[str, Any]) -> None:
    assert expected_shapes(config)
    assert can_be_saved([".300."], config)


def test_a_class_that_cannot_be_written_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.core_model_loading.revert_weight_conversion", lambda _, state: {})
    assert not can_be_saved([".300."], LLAMA)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "own-code", "auto_map": {"AutoModelForCausalLM": "modeling.Model"}},
        {**LLAMA, "num_hidden_layers": 10**9},
        {**LLAMA, "num_attention_heads": 0},
        {**LLAMA, "hidden_size": "wide"},
    ],
)
def test_names_stay_if_no_class_can_be_built(config: dict[str, Any]) -> None:
    names = {"h.1.attn.bias": "h.1.attn.bias"}
    assert map_names(names, config).names == names


def test_unknown_tensors_are_no_contradiction() -> None:
    assert unlike_configuration({}, {"model_type": "of_another_program", "num_hidden_layers": 2}) == ""
    assert "2 layers" in unlike_configuration({"a.0.b": (1,), "a.1.b": (1,)}, {"num_hidden_layers": 3})
