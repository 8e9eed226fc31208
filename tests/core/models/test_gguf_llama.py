"""GGUF to transformers: the converted model is the one the GGUF was written from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.errors import ModelError
from core.models.gguf_llama import convert_gguf
from tests.gguf_models import write_gguf

TEXTS = (
    "What is the capital of France?",
    "  two  spaces\n\n and 1234",
    "<|im_start|>user\nAu<|im_end|>\n",
    "naïve 日本",
)


@pytest.fixture
def converted(tiny_llama: Path, tmp_path: Path) -> Path:
    target = tmp_path / "converted"
    target.mkdir()
    convert_gguf(write_gguf(tiny_llama, tmp_path / "model.gguf"), target)
    return target


def test_weights_are_the_same_bit_for_bit(converted: Path, tiny_llama: Path) -> None:
    original, result = load_file(tiny_llama / "model.safetensors"), load_file(converted / "model.safetensors")
    assert original.keys() == result.keys()
    assert all(torch.equal(original[name], result[name]) for name in original)


def test_the_model_computes_the_same(converted: Path, tiny_llama: Path) -> None:
    tokens = torch.arange(3, 40)[None]
    with torch.inference_mode():
        ours = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32)(tokens).logits
        original = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)(tokens).logits
    assert torch.equal(ours, original)


def test_tokenizer_and_template_are_the_same(converted: Path, tiny_llama: Path) -> None:
    ours, original = AutoTokenizer.from_pretrained(converted), AutoTokenizer.from_pretrained(tiny_llama)
    assert ours.get_vocab() == original.get_vocab()
    assert ours.chat_template == original.chat_template
    assert (ours.eos_token, ours.pad_token, ours.bos_token) == ("<|im_end|>", "<|im_end|>", "<|im_start|>")
    for text in TEXTS:
        assert ours(text)["input_ids"] == original(text)["input_ids"]


def test_progress_counts_tensors(tiny_llama: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "converted"
    target.mkdir()
    convert_gguf(write_gguf(tiny_llama, tmp_path / "m.gguf"), target, lambda done, total: seen.append((done, total)))
    assert seen == [(number, 20) for number in range(1, 21)]


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model at all, whatever its name says")
    with pytest.raises(ModelError) as caught:
        convert_gguf(path, tmp_path)
    assert caught.value.code == "not-gguf"
