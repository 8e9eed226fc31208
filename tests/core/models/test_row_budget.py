"""Rows of scoring grow with the free memory of a GPU, and the memory plan counts them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.models import packing, row_budget
from core.models.packing import DEFAULT_ROW_TOKENS, decoder_inputs, pack
from core.models.row_budget import LONGEST_ROW, fitting_rows, row_tokens, token_bytes
from tests.core.models.test_packing import pairs_of

GB = 10**9
CONFIG = {"hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256}


def gpu_model(config: dict[str, Any]) -> Any:
    text = SimpleNamespace(**config, to_dict=lambda: config)
    return SimpleNamespace(
        device=torch.device("cuda", 0), dtype=torch.bfloat16, config=SimpleNamespace(get_text_config=lambda: text)
    )


def free(patch: pytest.MonkeyPatch, size_gb: float) -> None:
    patch.setattr(row_budget, "supports_chunks", lambda _model: True)
    patch.setattr(row_budget, "supports_varlen", lambda _model: True)
    patch.setattr(row_budget, "free_device_bytes", lambda: int(size_gb * GB))
    patch.setattr(torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(total_memory=80 * GB))


@pytest.mark.parametrize(("size_gb", "tokens"), [(12, 1024), (17, 2048), (21, 4096), (29, 8192), (80, LONGEST_ROW)])
def test_rows_are_doubled_while_memory_is_free(size_gb: float, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, size_gb)
    assert row_tokens(gpu_model(CONFIG | {"sliding_window": None})) == tokens
    assert tokens == 1024 or tokens * token_bytes(CONFIG, 2) <= (size_gb - 12) * GB


def test_rows_stay_short_without_variable_length_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 80)
    assert row_tokens(gpu_model(CONFIG | {"sliding_window": 4096})) == DEFAULT_ROW_TOKENS
    monkeypatch.setattr(row_budget, "supports_varlen", lambda _model: False)
    assert row_tokens(gpu_model(CONFIG | {"sliding_window": None})) == DEFAULT_ROW_TOKENS


def test_a_processor_has_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_budget, "supports_varlen", lambda _model: pytest.fail("asked"))
    assert row_tokens(
        torch.nn.Module.__new__(torch.nn.Module) if False else SimpleNamespace(device=torch.device("cpu"))
    )


def test_too_little_memory_gives_the_default() -> None:
    assert fitting_rows(0, 80 * GB, 1000) == DEFAULT_ROW_TOKENS
    assert fitting_rows(80 * GB, 80 * GB, 0) == LONGEST_ROW


def test_variable_length_attention_makes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    row, *_ = pack(pairs_of([(3, 4), (5, 2)], 6))
    monkeypatch.setattr(packing, "supports_chunks", lambda _model: True)
    monkeypatch.setattr(packing, "supports_varlen", lambda _model: True)
    config = SimpleNamespace(sliding_window=None, layer_types=["full_attention"])
    parameter = torch.nn.Parameter(torch.zeros(1))
    model = SimpleNamespace(
        parameters=lambda: iter([parameter]),
        dtype=torch.float32,
        config=SimpleNamespace(get_text_config=lambda: config, _attn_implementation="sdpa"),
    )
    assert "varlen" in decoder_inputs(model, row)
    assert "whole" not in vars(row.attends)
    assert row.attends.whole.shape == (1, 1, *[row.input_ids.numel()] * 2)
    assert row.attends.whole is row.attends.whole
