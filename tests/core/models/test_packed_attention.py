"""Chunked attention gives the losses of whole rows, for every architecture that supports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations import sdpa_attention

from core.models.chat_format import EncodedPair, encode_pair
from core.models.packed_attention import Chunks, attended_pairs, chunk_row, chunked_attention
from core.models.packing import answer_tokens, pack

QUESTIONS = [f"What is the number of {'very ' * length}large things?" for length in range(9)]


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


@pytest.fixture
def pairs(tiny_llama: Path) -> list[EncodedPair]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    return [encode_pair(tokenizer, question, f"It is {number}.") for number, question in enumerate(QUESTIONS)]


def test_a_row_is_split_between_samples_only() -> None:
    segments = [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4]
    assert chunk_row(segments, 2, tokens=3) == Chunks(2, ((0, 5), (5, 11), (11, 12)))
    assert chunk_row(segments, 2, tokens=100) == Chunks(2, ((0, 12),))


def test_masked_pairs_of_tokens_are_not_computed() -> None:
    assert attended_pairs(Chunks(2, ((0, 12),))) == 144
    assert attended_pairs(Chunks(2, ((0, 5), (5, 11), (11, 12)))) == 5 * 5 + 6 * 8 + 1 * 3


def test_losses_are_those_of_the_masked_row(model: Any, pairs: list[EncodedPair]) -> None:
    (row,) = pack(pairs, 10_000)
    assert len(row.chunks.bounds) > 2
    whole = row._replace(chunks=Chunks(row.prefix, ((0, row.input_ids.shape[1]),)))
    with torch.inference_mode():
        assert torch.allclose(answer_tokens(model, row).loss, answer_tokens(model, whole).loss, atol=1e-5)


def test_masks_are_contiguous(model: Any, pairs: list[EncodedPair], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, contiguous = sdpa_attention.sdpa_attention_forward, []

    def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: torch.Tensor, **options: Any) -> Any:
        contiguous.append(attention_mask.is_contiguous() and attention_mask.stride(-1) == 1)
        return plain(module, query, key, value, attention_mask, **options)

    monkeypatch.setattr(sdpa_attention, "sdpa_attention_forward", attend)
    (row,) = pack(pairs, 10_000)
    answer_tokens(model, row)
    assert contiguous == [True] * len(row.chunks.bounds) * model.config.num_hidden_layers


def test_gradients_pass_through(model: Any, pairs: list[EncodedPair]) -> None:
    (row,) = pack(pairs, 10_000)
    answer_tokens(model, row).loss.sum().backward()
    cut = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    whole = row._replace(chunks=Chunks(row.prefix, ((0, row.input_ids.shape[1]),)))
    answer_tokens(model, whole).loss.sum().backward()
    for ours, expected in zip(cut, (p.grad for p in model.parameters()), strict=True):
        assert torch.allclose(ours, expected, atol=1e-4)


def test_the_attention_implementation_is_restored(model: Any, pairs: list[EncodedPair]) -> None:
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError), chunked_attention(model):
        raise RuntimeError
    assert model.config._attn_implementation == before == "sdpa"


def test_a_model_with_another_attention_uses_the_mask(tiny_llama: Path, model: Any, pairs: list[EncodedPair]) -> None:
    eager = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32, attn_implementation="eager").eval()
    (row,) = pack(pairs, 10_000)
    with torch.inference_mode():
        assert torch.allclose(answer_tokens(eager, row).loss, answer_tokens(model, row).loss, atol=1e-5)
