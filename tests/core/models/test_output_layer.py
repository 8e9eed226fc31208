"""A saved output layer counts as tied exactly if it equals the embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.errors import ModelError
from core.models.loading import load_model, load_state
from core.models.output_layer import match_output_layer
from core.models.references import ModelReference
from core.settings import Settings
from tests.raising import raises
from tests.tiny_models import save_tiny_llama

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def state_of(path: Path, settings: Settings) -> dict[str, torch.Tensor]:
    return load_state(ModelReference("folder", str(path)), settings, torch.float32)


@pytest.fixture
def untied(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "untied", tie_word_embeddings=False)


def test_an_equal_output_layer_is_the_embedding(model: Any, untied: Path, settings: Settings) -> None:
    state = state_of(untied, settings)
    state[HEAD] = state[EMBEDDING].clone()
    assert HEAD not in match_output_layer(state, model, "expert")
    state[HEAD][-1, -1] += 1
    with raises(ModelError, "own-output-layer"):
        match_output_layer(state, model, "expert")


def test_a_tied_expert_gets_the_output_layer_of_an_untied_base(
    untied: Path, tiny_expert: Path, settings: Settings
) -> None:
    base = load_model(ModelReference("folder", str(untied)), settings, torch.float32)
    matched = match_output_layer(state_of(tiny_expert, settings), base, "expert")
    assert torch.equal(matched[HEAD], matched[EMBEDDING])
    base.load_state_dict(matched)
    inputs, expert = torch.arange(8)[None], AutoModelForCausalLM.from_pretrained(tiny_expert, dtype=torch.float32)
    assert torch.equal(base(inputs).logits, expert(inputs).logits)


def test_alike_models_stay_as_they_are(model: Any, tiny_expert: Path, untied: Path, settings: Settings) -> None:
    assert (
        match_output_layer(state_of(tiny_expert, settings), model, "expert").keys()
        == state_of(tiny_expert, settings).keys()
    )
    base = load_model(ModelReference("folder", str(untied)), settings, torch.float32)
    assert HEAD in match_output_layer(state_of(untied, settings), base, "expert")
