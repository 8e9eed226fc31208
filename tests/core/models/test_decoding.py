"""Replies are written under a model's own penalties, whatever else its generation_config.json holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from core.models.decoding import decoding_settings
from core.models.generation import generate_all
from core.models.loading import load_model, load_tokenizer
from core.models.references import ModelReference
from core.settings import Settings
from tests.tiny_models import VOCABULARY, save_tiny_llama

ASKED = [[{"role": "user", "content": text}] for text in ("What is the capital of France?", "What is gold?")]


@pytest.fixture
def pair(tmp_path: Path, settings: Settings) -> tuple[Any, Any]:
    ref = ModelReference("folder", str(save_tiny_llama(tmp_path / "model", tie_word_embeddings=False)))
    return load_model(ref, settings, torch.float32), load_tokenizer(ref, settings)


def replies(pair: tuple[Any, Any]) -> list[str]:
    return generate_all(*pair, ASKED, max_new_tokens=6)


@pytest.mark.parametrize(
    "setting",
    [
        {"cache_implementation": "static"},
        {"cache_implementation": "hybrid"},
        {"num_return_sequences": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"return_dict_in_generate": True, "output_scores": True},
        {"stop_strings": ["a"]},
        {"bad_words_ids": [[VOCABULARY + 7]]},
        {"suppress_tokens": [VOCABULARY + 7]},
        {"repetition_penalty": 0},
        {"max_length": 3, "max_new_tokens": 2, "temperature": -1.0},
        {"use_cache": False},
    ],
)
def test_settings_of_other_programs_change_nothing(setting: dict[str, Any], pair: tuple[Any, Any]) -> None:
    expected = replies(pair)
    assert all(expected)
    own = pair[0].generation_config
    for name, value in setting.items():
        setattr(own, name, value)
    assert replies(pair) == expected
    assert pair[0].generation_config is own


def test_penalties_and_suppressed_tokens_hold(pair: tuple[Any, Any]) -> None:
    model, _ = pair
    assert all(replies(pair))
    model.generation_config.suppress_tokens = list(range(3, VOCABULARY))
    assert replies(pair) == ["", ""], "only special tokens are left"
    model.generation_config = GenerationConfig(
        repetition_penalty=2, no_repeat_ngram_size=3, bad_words_ids=[[7]], min_new_tokens=2
    )
    with decoding_settings(model):
        kept = model.generation_config
        assert kept.repetition_penalty == 2.0 and kept.no_repeat_ngram_size == 3
        assert kept.bad_words_ids == [[7]] and kept.min_new_tokens == 2
