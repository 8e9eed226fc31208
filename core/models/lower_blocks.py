"""Runs the first blocks of a model only once where no candidate changes their weights.

If fine-tuning left the embeddings and the first n transformer blocks unchanged, every merge has the same first n
blocks. Their output for a text is cached, and the rest of the model starts from it. The result is exact, and each
candidate (or training step of such a fine-tune) saves n blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.models.packed_attention import chunked_attention

_BLOCK = re.compile(r"^model\.layers\.(\d+)\.")
_ABOVE = re.compile(r"^(lm_head|model\.norm)\.")
_ABOVE_TIED = re.compile(r"^model\.norm\.")  # a tied head is the embeddings


def unchanged_blocks(model: Any, changed: Iterable[str]) -> int:
    """Number of first blocks that contain none of the tensors named `changed`.

    It is 0 where the embeddings change, for models whose blocks are not a plain `model.layers`, and for models with
    several kinds of blocks, which select a block's kind by its index among the blocks that run.
    """
    if not isinstance(getattr(model.get_decoder(), "layers", None), nn.ModuleList):
        return 0
    if len(set(getattr(model.config.get_text_config(), "layer_types", None) or ())) > 1:
        return 0
    lowest = len(model.get_decoder().layers) - 1  # at least one block runs
    above = _ABOVE_TIED if getattr(model.config, "tie_word_embeddings", False) else _ABOVE
    for name in changed:
        if block := _BLOCK.match(name):
            lowest = min(lowest, int(block[1]))
        elif not above.match(name):
            return 0
    return lowest


def states_below(model: Any, blocks: int, **inputs: Any) -> Tensor:
    """The (1, L, d) hidden states that enter block number `blocks`, computed by the blocks below it.

    Args:
        model: a causal language model.
        blocks: number of blocks to run, above 0 (`unchanged_blocks`).
        inputs: arguments of the decoder's `forward`.
    """
    decoder = model.get_decoder()
    states: list[Tensor] = []
    hook = decoder.layers[blocks].register_forward_pre_hook(
        lambda _block, positional, named: states.append(positional[0] if positional else named["hidden_states"]),
        with_kwargs=True,
    )
    try:
        with _blocks_replaced(decoder, decoder.layers[: blocks + 1]), chunked_attention(model), torch.no_grad():
            decoder(**inputs, use_cache=False)
    finally:
        hook.remove()
    return states[0]


@contextmanager
def starting_at(model: Any, blocks: int) -> Iterator[None]:
    """Within the context `model` skips the first `blocks` blocks; pass their output as `inputs_embeds`."""
    decoder = model.get_decoder()
    with _blocks_replaced(decoder, decoder.layers[blocks:]):
        yield


def resumes_exactly(model: Any, blocks: int, **inputs: Any) -> bool:
    """Whether `model` gives the same output from cached states; models that scale their input embeddings do not."""
    with torch.no_grad(), chunked_attention(model):
        whole = model.get_decoder()(**inputs, use_cache=False).last_hidden_state
        states = states_below(model, blocks, **inputs)
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        with starting_at(model, blocks):
            resumed = model.get_decoder()(inputs_embeds=states, use_cache=False, **rest).last_hidden_state
    return bool(torch.equal(whole, resumed))


@contextmanager
def _blocks_replaced(decoder: Any, blocks: nn.ModuleList) -> Iterator[None]:
    every = decoder.layers
    decoder.layers = blocks
    try:
        yield
    finally:
        decoder.layers = every
