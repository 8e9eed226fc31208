"""Checkpoints whose files contradict each other are refused in preflight, for the true reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from core.contracts.events import CheckRow
from core.models.metadata import read_metadata
from core.models.references import parse_reference
from core.preflight.compatibility import check_against, check_alone
from core.preflight.configuration_check import configuration_rows
from core.settings import Settings
from tests.tiny_models import copy_model, save_tiny_llama


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def alone(text: object, settings: Settings) -> dict[str, CheckRow]:
    return {row.check: row for row in check_alone(read_metadata(parse_reference(str(text), settings), settings))}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_layers": 3}, "num_hidden_layers 3; the weights have 2 layers"),
        ({"num_hidden_layers": 10**9}, "the weights have 2 layers"),
        ({"attention_bias": True}, "8 tensors that the weights lack"),
        ({"vocab_size": 340}, "model.embed_tokens.weight has shape 352x32; config.json describes 340x32"),
        ({"head_dim": 16}, "config.json describes 32x32"),
        ({"tie_word_embeddings": False}, "lm_head.weight"),
        ({"pad_token_id": 400}, "Padding_idx"),
        ({"num_attention_heads": 0}, "cannot build a model"),
        ({"rope_parameters": {"rope_type": "magic", "rope_theta": 1e4, "factor": 2.0}}, "magic"),
    ],
)
def test_a_configuration_must_describe_the_weights(
    changes: dict[str, Any], named: str, tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    path = copy_model(tiny_llama, tmp_path / "model")
    assert "configuration fits weights" not in alone(path, settings)
    edit_json(path / "config.json", **changes)
    row = alone(path, settings)["configuration fits weights"]
    assert row.status == "error" and named in row.detail


def test_fewer_layers_than_the_bases_are_refused(
    tiny_llama: Path, tiny_expert: Path, tmp_path: Path, settings: Settings
) -> None:
    path = copy_model(tiny_expert, tmp_path / "model")
    edit_json(path / "config.json", num_hidden_layers=1)
    model, base = (read_metadata(parse_reference(str(one), settings), settings) for one in (path, tiny_llama))
    rows = {row.check: row for row in check_against(model, base)}
    assert rows["architecture equals base"].status == "error"
    assert "num_hidden_layers" in rows["architecture equals base"].detail


def test_tied_and_untied_copies_are_no_difference_of_configuration(tmp_path: Path, settings: Settings) -> None:
    tied, untied = save_tiny_llama(tmp_path / "tied"), save_tiny_llama(tmp_path / "untied", tie_word_embeddings=False)
    models = [read_metadata(parse_reference(str(one), settings), settings) for one in (tied, untied)]
    assert [row.status for row in configuration_rows(models, models[0])] == ["ok"]


@pytest.mark.parametrize("part", ["rank", "module", "cut", "empty"])
def test_adapters_that_peft_cannot_apply_are_refused(
    part: str, tiny_llama: Path, tiny_lora: Path, tmp_path: Path, settings: Settings
) -> None:
    path = copy_model(tiny_lora, tmp_path / "lora")
    file, state = path / "adapter_model.safetensors", load_file(path / "adapter_model.safetensors")
    if part == "rank":
        edit_json(path / "adapter_config.json", r="4")
    elif part == "module":
        edit_json(path / "adapter_config.json", target_modules=["k_proj"])
    else:
        save_file(dict(list(state.items())[: 3 if part == "cut" else 0]), file)
    row = alone(f"{tiny_llama}+{path}", settings)["adapter"]
    assert row.status == "error"
    assert "peft cannot apply it" in row.detail if part == "rank" else "it lacks" in row.detail


@pytest.mark.parametrize("options", [{"use_dora": True}, {"trainable_token_indices": [1, 2]}, {"use_rslora": True}])
def test_adapters_of_other_kinds_are_accepted(
    options: dict[str, Any], tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], **options)).save_pretrained(tmp_path / "lora")
    edit_json(tmp_path / "lora" / "adapter_config.json", an_option_of_a_newer_release=1, runtime_config={"a": 1})
    assert alone(f"{tiny_llama}+{tmp_path / 'lora'}", settings)["adapter"].status == "ok"
