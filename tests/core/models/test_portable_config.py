"""The JSON files of a saved model have the keys that transformers 4, llama.cpp and vLLM read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from core.merging.recipes import equal_weights
from core.models.end_tokens import end_token_ids
from core.models.export import export_model
from core.models.fingerprint import sha256_of_model
from core.models.portable_config import portable_config
from tests.tiny_models import CHATML

RECIPE = equal_weights("ties", "org/base", ("org/a",))
OLDER_THAN_5 = [
    *("bloom", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "gpt2", "gpt_neox", "granite"),
    *("llama", "mistral", "mixtral", "nemotron", "olmo", "olmo2", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3"),
    *("qwen3_moe", "stablelm", "starcoder2"),
]


def exported(model: Any, tokenizer: Any, folder: Path) -> Path:
    export_model(model, tokenizer, RECIPE, "# A merge\n", folder, scored_sha256=sha256_of_model(model))
    return folder


def content(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llama)


def rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 5e5, **values}


@pytest.mark.parametrize(
    ("model_type", "parameters", "old"),
    [
        ("llama", rope("default"), {"rope_theta": 5e5}),
        (
            "llama",
            rope("linear", factor=2.0),
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}},
        ),
        (
            "llama",
            rope("llama3", factor=8.0, original_max_position_embeddings=64),
            {
                "rope_theta": 5e5,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64},
            },
        ),
        (  # transformers 4 would take maximum / original = 1 as the factor
            "qwen2",
            rope("yarn", factor=4.0, original_max_position_embeddings=512),
            {
                "rope_theta": 5e5,
                "rope_scaling": {"type": "yarn", "rope_type": "yarn", "factor": 4.0},
                "original_max_position_embeddings": 512,
            },
        ),
        (
            "qwen2",
            rope("yarn", factor=4.0, original_max_position_embeddings=128),
            {
                "rope_theta": 5e5,
                "rope_scaling": {
                    "type": "yarn",
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 128,
                },
            },
        ),
        (  # its class accepts exactly these three keys
            "phi3",
            rope("longrope", short_factor=[1.0], long_factor=[2.0], original_max_position_embeddings=64),
            {
                "rope_theta": 5e5,
                "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]},
                "original_max_position_embeddings": 64,
            },
        ),
        ("gpt_neox", rope("default", partial_rotary_factor=0.25), {"rotary_emb_base": 5e5, "rotary_pct": 0.25}),
        (
            "gemma3_text",
            {"full_attention": rope("default"), "sliding_attention": rope("default", rope_theta=1e4)},
            {"rope_theta": 5e5, "rope_local_base_freq": 1e4},
        ),
        ("gpt2", None, {}),
    ],
)
def test_rope_is_written_in_the_old_form_too(model_type: str, parameters: Any, old: dict[str, Any]) -> None:
    config = {"model_type": model_type, "max_position_embeddings": 512, "rope_parameters": parameters}
    assert portable_config(config) == config | old


def test_the_text_part_of_a_model_is_completed_as_well() -> None:
    layers = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    text = {"model_type": "gemma3_text", "dtype": "bfloat16", "layer_types": layers}
    written = portable_config({"model_type": "gemma3", "text_config": text})["text_config"]
    assert written == text | {"torch_dtype": "bfloat16", "sliding_window_pattern": 3}
    irregular = text | {"layer_types": [*layers[:-1], "sliding_attention"]}
    assert "sliding_window_pattern" not in portable_config(irregular)


@pytest.mark.parametrize("model_type", OLDER_THAN_5)
def test_the_old_keys_change_nothing_here(model_type: str, tmp_path: Path) -> None:
    config = CONFIG_MAPPING[model_type]()
    written = tmp_path / "config.json"
    written.write_text(json.dumps(portable_config(json.loads(config.to_json_string()))))
    again, before = type(config).from_json_file(written).to_dict(), config.to_dict()
    assert {key: again[key] for key in before if key != "transformers_version"} == {
        key: value for key, value in before.items() if key != "transformers_version"
    }


def test_the_configuration_names_the_number_format_twice(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    config = content(exported(model, tokenizer, tmp_path / "merged") / "config.json")
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]


def test_the_tokenizer_is_one_that_transformers_4_knows(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]})
    folder = exported(model, tokenizer, tmp_path / "merged")
    config = content(folder / "tokenizer_config.json")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["chat_template"] == tokenizer.chat_template == (folder / "chat_template.jinja").read_text()
    assert "extra_special_tokens" not in config and config["additional_special_tokens"] == ["<|im_start|>"]
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
    assert config["added_tokens_decoder"]["2"]["content"] == "<|im_end|>"
    again, text = AutoTokenizer.from_pretrained(folder), "<|im_start|> Paris ,  gold.<|im_end|>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.extra_special_tokens == ["<|im_start|>"] and again.special_tokens_map == tokenizer.special_tokens_map


def test_named_templates_are_a_list(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = {"default": CHATML, "tool_use": "x"}
    folder = exported(model, tokenizer, tmp_path / "merged")
    listed = content(folder / "tokenizer_config.json")["chat_template"]
    assert {entry["name"]: entry["template"] for entry in listed} == tokenizer.chat_template
    assert AutoTokenizer.from_pretrained(folder).chat_template == tokenizer.chat_template


def test_every_end_token_is_saved(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    model.generation_config.eos_token_id = [0, 5]
    model.config.eos_token_id = 7
    generation = content(exported(model, tokenizer, tmp_path / "merged") / "generation_config.json")
    assert generation["eos_token_id"] == [0, 5, 7, tokenizer.eos_token_id]
    assert "_from_model_config" not in generation
    assert GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id == generation["eos_token_id"]


def test_the_end_of_a_turn_that_only_the_template_names_is_saved(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.eos_token = "<|endoftext|>"
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    generation = content(exported(model, tokenizer, tmp_path / "merged") / "generation_config.json")
    assert generation["eos_token_id"] == end_token_ids(model, tokenizer)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in generation["eos_token_id"]


def test_settings_that_transformers_refuses_to_save_are_saved(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    own = GenerationConfig(do_sample=False, temperature=0.9, top_p=0.6, max_length=4096, pad_token_id=0)
    with pytest.raises(ValueError, match="temperature"):
        own.save_pretrained(tmp_path / "refused")
    model.generation_config = own
    generation = content(exported(model, tokenizer, tmp_path / "merged") / "generation_config.json")
    assert generation["temperature"] == 0.9 and generation["top_p"] == 0.6 and generation["max_length"] == 4096
    assert model.generation_config is own
