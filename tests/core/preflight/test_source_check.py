"""Preflight says where weights come from, and which output layers and adapters fit, before anything is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.contracts.events import CheckRow
from core.models.metadata import read_metadata
from core.models.references import parse_reference
from core.preflight.check_rows import blocking_rows
from core.preflight.compatibility import check_against, check_alone
from core.settings import Settings
from tests.tiny_models import copy_model, save_tiny_llama

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def alone(text: object, settings: Settings) -> dict[str, CheckRow]:
    return {row.check: row for row in check_alone(read_metadata(parse_reference(str(text), settings), settings))}


def against(text: object, base: object, settings: Settings) -> dict[str, CheckRow]:
    model, other = (read_metadata(parse_reference(str(one), settings), settings) for one in (text, base))
    return {row.check: row for row in check_against(model, other)}


def edit_state(path: Path, **tensors: torch.Tensor) -> Path:
    state = load_file(path / "model.safetensors")
    save_file({**state, **tensors}, path / "model.safetensors", metadata={"format": "pt"})
    return path


def save_adapter(folder: Path, base: Path, rows: int | None = None, **config: Any) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    adapted = get_peft_model(model, LoraConfig(**{"r": 4, "target_modules": ["q_proj"], **config}))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "modules_to_save" in name or "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(folder)
    return folder


def test_pickles_are_reported_with_their_cost(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    path = copy_model(tiny_llama, tmp_path / "pickled")
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    rows = alone(path, settings)
    assert rows["pickled weights"].status == "warning" and "estimate" in rows["pickled weights"].detail
    assert "pickles" in rows["weights"].detail
    assert against(path, tiny_llama, settings)["tensors equal base"].status == "ok"


def test_a_left_over_adapter_is_reported(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    path = copy_model(tiny_llama, tmp_path / "leftover")
    (path / "adapter_config.json").write_text("{}")
    assert alone(path, settings)["left-over adapter"].status == "warning"
    assert "left-over adapter" not in alone(tiny_llama, settings)


def test_buffers_of_old_releases_are_no_difference(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    buffers = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}
    old = edit_state(copy_model(tiny_llama, tmp_path / "old"), **buffers)
    assert against(old, tiny_llama, settings)["tensors equal base"].status == "ok"
    assert against(tiny_llama, old, settings)["tensors equal base"].status == "ok"


@pytest.mark.parametrize("listed", [None, [], ["LLaMAForCausalLM"]])
def test_a_missing_class_name_is_no_difference(
    listed: list[str] | None, tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    path = copy_model(tiny_llama, tmp_path / "old")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "architectures": listed}))
    assert against(path, tiny_llama, settings)["architecture equals base"].status == "ok"


def test_output_layers_are_compared_by_value(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    check = "output layer equals base"
    untied = save_tiny_llama(tmp_path / "untied", tie_word_embeddings=False)
    assert against(untied, tiny_llama, settings)[check].status == "error"
    embedding = load_file(untied / "model.safetensors")[EMBEDDING].clone()
    edit_state(untied, **{HEAD: embedding})
    assert against(untied, tiny_llama, settings)[check].status == "ok"
    assert against(tiny_llama, untied, settings)[check].status == "ok"
    assert blocking_rows(list(against(tiny_llama, untied, settings).values())) == []
    assert check not in against(tiny_llama, tiny_llama, settings)


@pytest.mark.parametrize(
    ("config", "status"),
    [
        ({}, "ok"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "ok"),
        ({"modules_to_save": ["embed_tokens"]}, "error"),
        ({"modules_to_save": ["lm_head"]}, "error"),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, "error"),
    ],
)
def test_adapters_must_not_untie_the_output_layer(
    config: dict[str, Any], status: str, tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    lora = save_adapter(tmp_path / "lora", tiny_llama, **config)
    assert alone(f"{tiny_llama}+{lora}", settings)["adapter"].status == status


def test_whole_modules_over_an_untied_base(tmp_path: Path, settings: Settings) -> None:
    base = save_tiny_llama(tmp_path / "base", tie_word_embeddings=False)
    lora = save_adapter(tmp_path / "lora", base, modules_to_save=["embed_tokens", "lm_head"])
    assert alone(f"{base}+{lora}", settings)["adapter"].status == "ok"


def test_rows_added_to_the_embedding_are_refused(tmp_path: Path, settings: Settings) -> None:
    base = save_tiny_llama(tmp_path / "base", tie_word_embeddings=False)
    lora = save_adapter(tmp_path / "lora", base, 360, modules_to_save=["embed_tokens", "lm_head"])
    assert alone(f"{base}+{lora}", settings)["adapter"].status == "error"
    other = save_adapter(tmp_path / "other", base, 360, target_modules=["embed_tokens"])
    assert alone(f"{base}+{other}", settings)["adapter"].status == "error"


def test_an_adapter_on_an_adapter_is_refused(
    tiny_llama: Path, tiny_lora: Path, tmp_path: Path, settings: Settings
) -> None:
    lora = copy_model(tiny_lora, tmp_path / "second")
    config = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(tiny_lora)}))
    assert alone(f"{tiny_llama}+{lora}", settings)["adapter"].status == "error"
