"""The lower blocks of a model, run once where their weights never change.

A fine-tune that leaves the embeddings and the first n blocks as they were gives a merge with the same first n blocks
whatever the recipe. What they make of a text is kept, and the rest of the model starts from there: exact, and n
blocks cheaper for every candidate (and for every step of training such a fine-tune).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.models.packed_attention import attending_in_stretches

_BLOCK = re.compile(r"^model\.layers\.(\d+)\.")
_ABOVE = re.compile(r"^(lm_head|model\.norm)\.")
_ABOVE_TIED = re.compile(r"^model\.norm\.")  # a tied head is the embeddings


def unchanged_blocks(model: Any, changed: Iterable[str]) -> int:
    """How many of the first blocks, embeddings included, hold none of the tensors named `changed`.

    0 for models whose blocks are not a plain `model.layers`, or of several kinds, which they tell apart by their
    place among those that run; and where the embeddings change.
    """
    if not isinstance(getattr(model.get_decoder(), "layers", None), nn.ModuleList):
        return 0
    if len(set(getattr(model.config.get_text_config(), "layer_types", None) or ())) > 1:
        return 0
    lowest = len(model.get_decoder().layers) - 1  # one block at least is run
    above = _ABOVE_TIED if getattr(model.config, "tie_word_embeddings", False) else _ABOVE
    for name in changed:
        if found := _BLOCK.match(name):
            lowest = min(lowest, int(found[1]))
        elif not above.match(name):
            return 0
    return lowest


def states_below(model: Any, blocks: int, **inputs: Any) -> Tensor:
    """What block number `blocks` is given: (1, L, d) hidden states of the blocks below it.

    Args:
        model: a causal language model.
        blocks: as `unchanged_blocks` says; above 0.
        inputs: the decoder's inputs, as of `forward`.
    """
    decoder = model.get_decoder()
    kept: list[Tensor] = []
    hook = decoder.layers[blocks].register_forward_pre_hook(
        lambda _block, positional, named: kept.append(positional[0] if positional else named["hidden_states"]),
        with_kwargs=True,
    )
    try:
        with _blocks_replaced(decoder, decoder.layers[: blocks + 1]), attending_in_stretches(model), torch.no_grad():
            decoder(**inputs, use_cache=False)
    finally:
        hook.remove()
    return kept[0]


@contextmanager
def starting_at(model: Any, blocks: int) -> Iterator[None]:
    """Within the context, `model` runs from block number `blocks` up on `inputs_embeds` = the states below it."""
    decoder = model.get_decoder()
    with _blocks_replaced(decoder, decoder.layers[blocks:]):
        yield


def resumes_exactly(model: Any, blocks: int, **inputs: Any) -> bool:
    """Whether `model` says the same when it starts from the states below: some models scale what comes in first."""
    with torch.no_grad(), attending_in_stretches(model):
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
