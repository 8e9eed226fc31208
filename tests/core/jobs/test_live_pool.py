"""A loaded pool: stored weights never share memory with the live model that merges are written into."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from core.contracts.run_spec import Memory, PoolSpec
from core.jobs.live_pool import LivePool, load_pool
from core.merging.recipes import equal_weights
from core.models.memory import FreeMemory, MemoryPlan
from core.settings import Settings
from tests.tiny_models import VOCABULARY, tiny_tokenizer

BUFFER = "model.layers.1.mlp.gate.e_score_correction_bias"


def save_mixture(folder: Path, corrections: list[float]) -> Path:
    """A tiny mixture of experts, all in bfloat16: a saved buffer corrects its choice, which is read in float32."""
    config = AutoConfig.for_model(
        "glm4_moe",
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    weights = folder / "model.safetensors"
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(weights).items()}
    save_file(tensors | {BUFFER: torch.tensor(corrections).bfloat16()}, weights, {"format": "pt"})
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", ["resident", "streamed", "compact"])
def test_a_merge_does_not_change_the_stored_weights(
    memory: Memory, dtype: torch.dtype, settings: Settings, tmp_path: Path
) -> None:
    base = save_mixture(tmp_path / "base", [0.0, 1.0, 2.0, 3.0])
    expert = save_mixture(tmp_path / "expert", [4.0, 1.0, 2.0, 1.0])
    spec = PoolSpec.model_validate({"base": str(base), "experts": [{"model": str(expert)}]})
    pools: list[LivePool] = []
    for _ in load_pool(spec, settings, pools.append, dtype, MemoryPlan(memory, (), FreeMemory(0))):
        pass
    merge = pools[0].merge
    for _ in range(2):
        merge.apply(equal_weights("task_arithmetic", str(base), (str(expert),)))
        assert merge.live.state_dict()[BUFFER].tolist() == [2.0, 1.0, 2.0, 2.0]
    merge.write_parent(str(base))
    assert merge.live.state_dict()[BUFFER].tolist() == [0.0, 1.0, 2.0, 3.0]
