"""The token budget of a batch of replies: fixed on a CPU, larger on a GPU with enough free memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from core.models import reply_budget
from core.models.reply_budget import DEFAULT_TOKEN_BUDGET, bytes_per_token, fitting_budget, token_budget

LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


def model_on(device: str) -> Any:
    return SimpleNamespace(device=torch.device(device), dtype=torch.bfloat16, config=LLAMA_8B)


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Free bytes of a simulated GPU, in a list so that a test can change them."""
    free_bytes = [20_000_000_000]
    monkeypatch.setattr(reply_budget, "free_device_bytes", lambda: free_bytes[0])
    return free_bytes


def test_cpus_have_the_fixed_budget() -> None:
    assert token_budget(model_on("cpu"), sampled=False) == DEFAULT_TOKEN_BUDGET == 6144


def test_a_gpus_budget_depends_on_its_free_memory(free: list[int]) -> None:
    budget = token_budget(model_on("cuda"), sampled=False)
    assert budget == 4 * DEFAULT_TOKEN_BUDGET
    assert budget * bytes_per_token(LLAMA_8B, 2) < free[0]
    free[0] = 1_000_000
    assert token_budget(model_on("cuda"), sampled=False) == DEFAULT_TOKEN_BUDGET


def test_the_budget_of_sampled_replies_ignores_the_free_memory(free: list[int]) -> None:
    budgets = set()
    for free[0] in (10**8, 10**10, 10**12):
        budgets.add(token_budget(model_on("cuda"), sampled=True))
    assert budgets == {DEFAULT_TOKEN_BUDGET}


def test_a_token_needs_memory_for_keys_and_values_of_every_layer() -> None:
    cached = 2 * 2 * 32 * 8 * 128
    assert cached < bytes_per_token(LLAMA_8B, 2) < 4 * cached
    assert bytes_per_token(LLAMA_8B, 4) > bytes_per_token(LLAMA_8B, 2)


def test_budgets_are_doublings_with_a_limit() -> None:
    budgets = [fitting_budget(free_bytes, 1000) for free_bytes in (0, 2 * 10**7, 4 * 10**7, 10**8, 10**15)]
    assert budgets == [6144 * factor for factor in (1, 2, 4, 8, 16)]
