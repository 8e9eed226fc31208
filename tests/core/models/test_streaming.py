"""Replies that are written piece by piece: equal to the whole reply, sampled with a seed, and stopped when closed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.errors import ModelError
from core.models import streaming
from core.models.generation import generate
from core.models.streaming import Decoding, stream_reply
from tests.tiny_models import save_tiny_llama

CONVERSATION = [
    {"role": "user", "content": "What is carbon?"},
    {"role": "assistant", "content": "An element."},
    {"role": "user", "content": "And helium?"},
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A model that ends no reply early, and its tokenizer."""
    folder = tmp_path_factory.mktemp("streaming")
    save_tiny_llama(folder, tie_word_embeddings=False, initializer_range=0.4)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def test_the_last_piece_is_the_reply_of_a_batch(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    whole = dict(generate(model, tokenizer, [CONVERSATION], max_new_tokens=24))[0]
    pieces = list(stream_reply(model, tokenizer, CONVERSATION, Decoding(24)))
    assert pieces[-1] == whole
    assert len(pieces) > 2
    assert all(later.startswith(earlier) for earlier, later in pairwise(pieces))


def test_sampling_follows_its_seed(loaded: tuple[Any, Any]) -> None:
    def reply(seed: int) -> str:
        return list(stream_reply(*loaded, CONVERSATION, Decoding(24, temperature=1.5, seed=seed)))[-1]

    assert reply(1) == reply(1)
    assert len({reply(seed) for seed in range(4)}) > 1


def test_a_closed_stream_ends_the_generation(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = loaded
    steps = 0
    forward = model.forward

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        return forward(*arguments, **options)

    monkeypatch.setattr(model, "forward", counted)
    pieces = stream_reply(model, tokenizer, CONVERSATION, Decoding(400))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert 0 < steps < 400


def test_an_error_of_the_model_reaches_the_reader(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = loaded

    def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise ModelError("no", code="for-a-test")

    monkeypatch.setattr(streaming, "end_token_ids", lambda *_: [])
    monkeypatch.setattr(model, "generate", refuse)
    with pytest.raises(ModelError):
        list(stream_reply(model, tokenizer, CONVERSATION, Decoding()))
