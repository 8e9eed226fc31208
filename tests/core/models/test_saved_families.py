"""The hash of a live model is the hash of what is saved, for families whose saved names differ from the live ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.models.class_tensors import can_be_saved
from core.models.fingerprint import sha256_of_folder, sha256_of_model, sha256_of_state
from core.models.loading import load_model, untied_state
from core.models.metadata import read_metadata
from core.models.references import ModelReference
from core.settings import Settings
from tests.architectures import save_tiny

MOE = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
DEEPSEEK = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
NEXT = {
    **MOE,
    "shared_expert_intermediate_size": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "gpt_neox": {},
    "gpt2": {},
    "phi3": {"pad_token_id": 0},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3_moe": MOE,
    "qwen3_next": NEXT,
    "deepseek_v3": DEEPSEEK,
    "olmo2": {},
    "granite": {},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_is_scored(family: str, tmp_path: Path, settings: Settings) -> None:
    path = save_tiny(family, tmp_path / "first", **FAMILIES[family])
    ref = ModelReference("folder", str(path))
    model = load_model(ref, settings, torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():  # a merge changes the values in place
            parameter.add_(0.125)
    scored = sha256_of_model(model)
    model.save_pretrained(tmp_path / "saved")
    assert sha256_of_folder(tmp_path / "saved") == scored
    again = load_model(ModelReference("folder", str(tmp_path / "saved")), settings, torch.bfloat16)
    assert sha256_of_model(again) == scored
    inputs = torch.arange(12)[None]
    assert torch.equal(again(inputs).logits, model(inputs).logits)
    facts = read_metadata(ref, settings)
    assert can_be_saved(facts.tensors, facts.config)


def test_recorded_hashes_of_plain_families_stay_valid(tiny_llama: Path, settings: Settings) -> None:
    model = load_model(ModelReference("folder", str(tiny_llama)), settings, torch.bfloat16)
    assert sha256_of_model(model) == sha256_of_state(untied_state(model))
