"""A model under another configuration gives exactly what a model loaded with that configuration gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AddedToken, AutoConfig, AutoModelForCausalLM, GenerationConfig, LlamaConfig

from core.errors import ModelError
from core.models.fingerprint import sha256_of_model
from core.models.member_tokenizer import fits_rows, same_tokenizer
from core.models.own_settings import (
    configuration_values,
    read_own_settings,
    same_configuration,
    same_generation,
    under_settings,
)
from core.models.references import parse_reference
from core.settings import Settings
from tests.tiny_models import save_tiny_llama, tiny_tokenizer

SIZES = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
GEMMA = {"head_dim": 8, "sliding_window": 64}
CAPPED = {"final_logit_softcapping": 1.0, "attn_logit_softcapping": 1.0, "query_pre_attn_scalar": 7}
MULTIPLIERS = {"residual_multiplier": 0.3, "logits_scaling": 3.0, "embedding_multiplier": 2.0}
IDS = torch.arange(1, 101)[None]


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("llama", {}, {"rope_theta": 500.0}),
        ("llama", {}, {"rope_parameters": LLAMA3}),
        ("llama", {}, {"rope_parameters": LINEAR}),
        ("llama", {"rope_theta": 500.0}, {"rope_parameters": YARN}),
        ("mistral", {"sliding_window": None}, {"sliding_window": 4}),
        ("qwen2", {}, {"rms_norm_eps": 1e-2}),
        ("gemma2", GEMMA, GEMMA | {"sliding_window": 3} | CAPPED),
        ("gemma3_text", GEMMA, GEMMA | {"sliding_window": 3}),
        ("gpt2", {}, {"layer_norm_epsilon": 0.1}),
        ("gpt_neox", {}, {"rotary_emb_base": 77, "use_parallel_residual": False}),
        ("granite", {}, MULTIPLIERS),
        ("mixtral", {"num_local_experts": 4}, {"num_local_experts": 4, "num_experts_per_tok": 1}),
    ],
)
def test_it_computes_what_a_model_loaded_with_the_configuration_computes(
    kind: str, first: dict[str, Any], second: dict[str, Any], tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | first))
        for parameter in made.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    made.to(torch.bfloat16).save_pretrained(tmp_path)
    live = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    other = AutoConfig.for_model(kind, **SIZES | second)
    other.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    own = under_settings(live, AutoConfig.from_pretrained(tmp_path), live.generation_config)
    same = under_settings(live, live.config, live.generation_config)
    with torch.no_grad():
        before, expected = live(IDS).logits, loaded(IDS).logits
        assert not torch.equal(before, expected)  # so that the setting is tested
        assert torch.equal(own(IDS).logits, expected)
        assert torch.equal(same(IDS).logits, before)
        assert torch.equal(live(IDS).logits, before)  # it is left as it was
    assert not same_configuration(live.config, other)
    assert sha256_of_model(own) == sha256_of_model(live)


def test_weights_are_shared(tmp_path: Path) -> None:
    live = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path)).eval()
    own = under_settings(live, live.config, live.generation_config)
    assert all(a is b for a, b in zip(live.parameters(), own.parameters(), strict=True))
    with torch.no_grad():
        live.get_input_embeddings().weight.zero_()
    assert float(own.get_input_embeddings().weight.abs().sum()) == 0


def test_a_configuration_with_other_tensors_is_refused(tmp_path: Path) -> None:
    live = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path)).eval()
    biased = LlamaConfig(**live.config.to_dict() | {"attention_bias": True})
    with pytest.raises(ModelError) as error:
        under_settings(live, biased, live.generation_config)
    assert error.value.code == "config-mismatch"


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({"rope_theta": 5e5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        ({}, {"rope_theta": 10000.0}),
        (
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}},
        ),
        ({"torch_dtype": "bfloat16"}, {"dtype": "float32"}),
        ({"rms_norm_eps": 1e-6}, {}),
        ({"sliding_window": 4096, "use_sliding_window": False, "model_type": "qwen2"}, {"model_type": "qwen2"}),
    ],
)
def test_spellings_of_two_versions_and_defaults_agree(older: dict[str, Any], newer: dict[str, Any]) -> None:
    first, second = (
        AutoConfig.for_model(
            values.get("model_type", "llama"), **{k: v for k, v in values.items() if k != "model_type"}
        )
        for values in (older, newer)
    )
    assert configuration_values(first) == configuration_values(second)


def test_generation_settings_and_tokenizers_are_compared() -> None:
    assert same_generation(GenerationConfig(eos_token_id=1), GenerationConfig(eos_token_id=1))
    assert not same_generation(GenerationConfig(eos_token_id=1), GenerationConfig(eos_token_id=[1, 2]))
    tokenizer, other = tiny_tokenizer(), tiny_tokenizer(None)
    assert same_tokenizer(tokenizer, tiny_tokenizer())
    assert not same_tokenizer(tokenizer, other)
    assert fits_rows(other, tokenizer, 352)
    other.add_tokens([AddedToken("<new>")])
    assert not fits_rows(other, tokenizer, len(tokenizer))
    assert fits_rows(other, tokenizer, len(tokenizer) + 1)
    tokenizer.add_tokens([AddedToken("<old>")])
    assert not fits_rows(other, tokenizer, len(tokenizer) + 1)  # one number, two tokens


def test_settings_are_read_from_the_files(tmp_path: Path, settings: Settings) -> None:
    folder = save_tiny_llama(tmp_path / "model", rope_theta=77.0)
    GenerationConfig(eos_token_id=[1, 2], repetition_penalty=1.5).save_pretrained(folder)
    own = read_own_settings(parse_reference(str(folder), settings), settings)
    assert configuration_values(own.config)["rope_theta"] == 77.0
    assert (own.generation.eos_token_id, own.generation.repetition_penalty) == ([1, 2], 1.5)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError) as error:
        read_own_settings(parse_reference(str(folder), settings), settings)
    assert error.value.code == "config-unreadable"
