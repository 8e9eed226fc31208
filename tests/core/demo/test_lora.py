"""Adapter training on a tiny real model: it learns, its scale works, and stacked adapters add up exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.demo.lora import SampleGroup, Schedule, add_adapter, save_stacked_adapter, scale_adapter, train_adapter
from core.models.chat_format import EncodedPair

PAIR = EncodedPair([5, 9, 12, 40, 41, 42], 3)
PROBE = torch.tensor([[5, 9, 12, 40, 41]])


def fresh(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def nudged(model: Any, seed: int) -> Any:
    """Return `model` with a nonzero adapter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(PROBE).logits


def test_training_lowers_the_loss_and_leaves_the_base_alone(tiny_llama: Path) -> None:
    model = add_adapter(fresh(tiny_llama), rank=4, seed=0)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    before = torch.log_softmax(logits(model)[0, -1], -1)[42]
    train_adapter(model, [SampleGroup([PAIR] * 16)], Schedule(20, 1e-2, 16, rank=4), lambda line: None)
    assert torch.log_softmax(logits(model)[0, -1], -1)[42] > before + 0.5
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)


def test_an_adapter_scaled_to_zero_changes_nothing(tiny_llama: Path) -> None:
    model = nudged(add_adapter(fresh(tiny_llama), rank=4, seed=0), seed=1)
    full = logits(model)
    scale_adapter(model, 0.0)
    assert torch.allclose(logits(model), logits(fresh(tiny_llama)), atol=1e-5)
    scale_adapter(model, 1.0)
    assert torch.equal(logits(model), full)


@pytest.mark.parametrize("lower_scale", [1.0, 0.4])
def test_stacked_adapters_are_saved_as_their_sum(tiny_llama: Path, tmp_path: Path, lower_scale: float) -> None:
    lower = nudged(add_adapter(fresh(tiny_llama), rank=4, seed=0), seed=1)
    lower.save_pretrained(tmp_path / "lower")
    upper = nudged(add_adapter(lower.merge_and_unload(), rank=2, seed=0), seed=2)
    save_stacked_adapter(upper, tmp_path / "lower", tmp_path / "joined", lower_scale)
    joined = PeftModel.from_pretrained(fresh(tiny_llama), tmp_path / "joined").merge_and_unload().state_dict()
    base, below = fresh(tiny_llama).state_dict(), fresh(tiny_llama)
    below = PeftModel.from_pretrained(below, tmp_path / "lower").merge_and_unload().state_dict()
    above = upper.merge_and_unload().state_dict()
    for name, tensor in joined.items():
        expected = base[name] + lower_scale * (below[name] - base[name]) + (above[name] - below[name])
        assert torch.allclose(tensor, expected, atol=1e-6)
