"""Blocks that no candidate changes run once, with bit-identical results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.models.chat_format import EncodedPair
from core.models.lower_blocks import resumes_exactly, starting_at, states_below, unchanged_blocks
from core.models.packing import answer_tokens, decoder_inputs, pack

OPENING = list(range(20, 36))
PAIRS = [EncodedPair([*OPENING, *own], 18) for own in ([5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16, 17])]


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("changed", "blocks"),
    [
        (["model.layers.1.mlp.down_proj.weight"], 1),
        (["model.layers.1.mlp.down_proj.weight", "model.norm.weight"], 1),
        (["model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"], 0),
        (["model.embed_tokens.weight"], 0),
        (["lm_head.weight"], 0),
        ([], 1),
    ],
)
def test_counts_the_blocks_below_the_first_change(model: Any, changed: list[str], blocks: int) -> None:
    """One block is always run; the tiny model's head is its embeddings."""
    assert unchanged_blocks(model, changed) == blocks


def test_a_head_of_its_own_may_change(model: Any) -> None:
    model.config.tie_word_embeddings = False
    assert unchanged_blocks(model, ["lm_head.weight"]) == 1


def test_models_with_several_kinds_of_blocks_run_all_of_them(model: Any) -> None:
    """A block selects its mask by its index among the blocks that run."""
    model.config.layer_types = ["sliding_attention", "full_attention"]
    assert unchanged_blocks(model, ["model.layers.1.mlp.down_proj.weight"]) == 0
    model.config.layer_types = ["full_attention", "full_attention"]
    assert unchanged_blocks(model, ["model.layers.1.mlp.down_proj.weight"]) == 1


def test_starting_above_gives_the_same_losses(model: Any) -> None:
    (row,) = pack(PAIRS)
    with torch.no_grad():
        whole = answer_tokens(model, row)
        states = states_below(model, 1, **decoder_inputs(model, row))
        resumed = answer_tokens(model, row, (1, states))
    assert torch.equal(whole.loss, resumed.loss)
    assert torch.equal(whole.greedy, resumed.greedy)
    assert len(model.model.layers) == 2


def test_a_change_above_counts_and_cached_states_stay_valid(model: Any) -> None:
    (row,) = pack(PAIRS)
    with torch.no_grad():
        states = states_below(model, 1, **decoder_inputs(model, row))
        before = answer_tokens(model, row).loss
        model.model.layers[1].mlp.down_proj.weight.mul_(-1)
        assert not torch.equal(answer_tokens(model, row).loss, before)
        assert torch.equal(answer_tokens(model, row, (1, states)).loss, answer_tokens(model, row).loss)


def test_a_model_that_scales_its_input_embeddings_is_detected(model: Any) -> None:
    (row,) = pack(PAIRS)
    inputs = decoder_inputs(model, row)
    assert resumes_exactly(model, 1, **inputs)
    forward = model.model.forward

    def scaled(*, inputs_embeds: Any = None, input_ids: Any = None, **rest: Any) -> Any:
        given = model.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        return forward(inputs_embeds=given * 2, **rest)

    model.model.forward = scaled
    assert not resumes_exactly(model, 1, **inputs)


def test_all_blocks_are_back_after_an_error(model: Any) -> None:
    with pytest.raises(ZeroDivisionError), starting_at(model, 1):
        assert len(model.model.layers) == 1
        raise ZeroDivisionError
    assert len(model.model.layers) == 2
