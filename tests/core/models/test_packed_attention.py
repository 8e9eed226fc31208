"""Attention in stretches: the losses of whole rows, for every architecture that takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations import sdpa_attention

from core.models.chat_format import EncodedPair, encode_pair
from core.models.packed_attention import Stretches, attending_in_stretches, products_of, stretches_of
from core.models.packing import answer_tokens, pack

QUESTIONS = [f"What is the number of {'very ' * length}large things?" for length in range(9)]


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


@pytest.fixture
def pairs(tiny_llama: Path) -> list[EncodedPair]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    return [encode_pair(tokenizer, question, f"It is {number}.") for number, question in enumerate(QUESTIONS)]


def test_a_row_is_cut_between_samples_only() -> None:
    segments = [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4]
    assert stretches_of(segments, 2, tokens=3) == Stretches(2, ((0, 5), (5, 11), (11, 12)))
    assert stretches_of(segments, 2, tokens=100) == Stretches(2, ((0, 12),))


def test_hidden_pairs_of_tokens_are_left_out() -> None:
    assert products_of(Stretches(2, ((0, 12),))) == 144
    assert products_of(Stretches(2, ((0, 5), (5, 11), (11, 12)))) == 5 * 5 + 6 * 8 + 1 * 3


def test_losses_are_those_of_the_masked_row(model: Any, pairs: list[EncodedPair]) -> None:
    (row,) = pack(pairs, 10_000)
    assert len(row.stretches.bounds) > 2
    whole = row._replace(stretches=Stretches(row.prefix, ((0, row.input_ids.shape[1]),)))
    with torch.inference_mode():
        assert torch.allclose(answer_tokens(model, row).loss, answer_tokens(model, whole).loss, atol=1e-5)


def test_masks_are_contiguous(model: Any, pairs: list[EncodedPair], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, seen = sdpa_attention.sdpa_attention_forward, []

    def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: torch.Tensor, **options: Any) -> Any:
        seen.append(attention_mask.is_contiguous() and attention_mask.stride(-1) == 1)
        return plain(module, query, key, value, attention_mask, **options)

    monkeypatch.setattr(sdpa_attention, "sdpa_attention_forward", attend)
    (row,) = pack(pairs, 10_000)
    answer_tokens(model, row)
    assert seen == [True] * len(row.stretches.bounds) * model.config.num_hidden_layers


def test_gradients_pass_through(model: Any, pairs: list[EncodedPair]) -> None:
    (row,) = pack(pairs, 10_000)
    answer_tokens(model, row).loss.sum().backward()
    cut = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    whole = row._replace(stretches=Stretches(row.prefix, ((0, row.input_ids.shape[1]),)))
    answer_tokens(model, whole).loss.sum().backward()
    for ours, expected in zip(cut, (p.grad for p in model.parameters()), strict=True):
        assert torch.allclose(ours, expected, atol=1e-4)


def test_the_model_attends_as_before_afterwards(model: Any, pairs: list[EncodedPair]) -> None:
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError), attending_in_stretches(model):
        raise RuntimeError
    assert model.config._attn_implementation == before == "sdpa"


def test_a_model_that_attends_otherwise_runs_on_the_mask(
    tiny_llama: Path, model: Any, pairs: list[EncodedPair]
) -> None:
    eager = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32, attn_implementation="eager").eval()
    (row,) = pack(pairs, 10_000)
    with torch.inference_mode():
        assert torch.allclose(answer_tokens(eager, row).loss, answer_tokens(model, row).loss, atol=1e-5)
