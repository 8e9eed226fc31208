"""Computes answer losses of many samples in few dense rows: teacher forcing without padding (sequence packing).

Samples follow one another in rows of about `row_tokens` tokens. Tokens that all samples of a row start with (the
template's system turn) are stored once. An attention mask lets each sample see this prefix and itself only, and
positions restart after the prefix. Every loss equals that of the sample run alone, up to rounding. Attention runs over
the row in chunks (`core.models.packed_attention`), and the vocabulary projection at answer positions only. The search
scores with this module, and adapters train with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from core.models.chat_format import EncodedPair
from core.models.lower_blocks import starting_at
from core.models.packed_attention import Chunks, chunk_row, chunked_attention, supports_chunks
from core.models.varlen_attention import plan_varlen, supports_varlen

DEFAULT_ROW_TOKENS = 1024
"""Long rows repeat the prefix less often and use the processor better; chunks keep attention cheap."""
CHUNK_TOKENS = 64
"""Minimum number of tokens of an attention chunk; 64 to 100 were fastest on two cores."""
_OPENING_TOKENS = 12
_SLIDING = "sliding_attention"  # transformers' name


@dataclass(frozen=True)
class RowMask:
    """The attention mask of a row, made when it is first read: variable-length attention needs none.

    Attributes:
        prefix: length of the shared prefix.
        ends: index after the last token of each sample, in order.
    """

    prefix: int
    ends: tuple[int, ...]

    @cached_property
    def whole(self) -> Tensor:
        """(1, 1, L, L) True where a token (row) may attend to another (column)."""
        with torch.inference_mode(False):  # a backward pass may use it later
            starts = torch.tensor([0, self.prefix, *self.ends])
            segments = torch.arange(len(self.ends) + 1).repeat_interleave(starts.diff())
            same = (segments[:, None] == segments[None, :]) | (segments[None, :] == 0)
            return same.tril()[None, None]


class PackedRow(NamedTuple):
    """One dense row of several samples.

    Attributes:
        input_ids: (1, L) tokens: the shared prefix, then each sample's own tokens.
        position_ids: (1, L) positions that each sample would have alone.
        attends: which tokens a token may attend to.
        predict_at: (A,) indices in the row whose next token is an answer token.
        targets: (A,) the answer tokens.
        owner: (A,) index of the sample of each answer token, in the caller's order.
        order: (A,) index of each answer token within its answer, 0 = first.
        members: indices of the samples in the row, in order.
        prefix: length of the shared prefix.
        chunks: how attention may split the row.
        ends: index after the last token of each sample, in order.
    """

    input_ids: Tensor
    position_ids: Tensor
    attends: RowMask
    predict_at: Tensor
    targets: Tensor
    owner: Tensor
    order: Tensor
    members: tuple[int, ...]
    prefix: int
    chunks: Chunks
    ends: tuple[int, ...]


def pack(pairs: Sequence[EncodedPair], row_tokens: int = DEFAULT_ROW_TOKENS) -> list[PackedRow]:
    """Pack `pairs` into rows of at most `row_tokens` tokens (a longer sample gets its own row)."""
    rows: list[PackedRow] = []
    for similar in _by_opening(pairs):
        prefix = _common_prefix([pairs[index] for index in similar])
        group: list[int] = []
        used = prefix
        for index in similar:
            own = len(pairs[index].input_ids) - prefix
            if group and used + own > row_tokens:
                rows.append(_pack_row(pairs, group, prefix))
                group, used = [], prefix
            group.append(index)
            used += own
        rows.append(_pack_row(pairs, group, prefix))
    return rows


def _by_opening(pairs: Sequence[EncodedPair]) -> list[list[int]]:
    """Indices of samples grouped by their first tokens: samples with different system turns share no prefix."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(tuple(pair.input_ids[:_OPENING_TOKENS]), []).append(index)
    return list(groups.values())


def _common_prefix(pairs: Sequence[EncodedPair]) -> int:
    """Length of the prefix that all samples share, without any sample's last prompt token."""
    if len(pairs) < 2:
        return 0
    first = pairs[0].input_ids
    length = min(pair.answer_start - 1 for pair in pairs)
    for pair in pairs[1:]:
        while length > 0 and pair.input_ids[:length] != first[:length]:
            length -= 1
    return max(length, 0)


def _pack_row(pairs: Sequence[EncodedPair], group: Sequence[int], prefix: int) -> PackedRow:
    tokens = list(pairs[group[0]].input_ids[:prefix])
    positions = list(range(prefix))
    segments = [0] * prefix
    predict_at, targets, owner, order, ends = [], [], [], [], []
    for segment, index in enumerate(group, start=1):
        pair = pairs[index]
        shift = len(tokens) - prefix
        for place in range(pair.answer_start, len(pair.input_ids)):
            predict_at.append(shift + place - 1)
            targets.append(pair.input_ids[place])
            owner.append(index)
            order.append(place - pair.answer_start)
        tokens += pair.input_ids[prefix:]
        positions += range(prefix, len(pair.input_ids))
        segments += [segment] * (len(pair.input_ids) - prefix)
        ends.append(len(tokens))
    return PackedRow(
        torch.tensor([tokens]),
        torch.tensor([positions]),
        RowMask(prefix, tuple(ends)),
        torch.tensor(predict_at),
        torch.tensor(targets),
        torch.tensor(owner),
        torch.tensor(order),
        tuple(group),
        prefix,
        chunk_row(segments, prefix, CHUNK_TOKENS),
        tuple(ends),
    )


def row_of(pairs: Sequence[EncodedPair], row: PackedRow, members: Sequence[int]) -> PackedRow:
    """A row with only some of a row's samples; `pairs` are the samples that `row` was packed from."""
    return row if tuple(members) == row.members else _pack_row(pairs, members, row.prefix)


def places_in(row: PackedRow, pairs: Sequence[EncodedPair], members: Sequence[int]) -> Tensor:
    """Indices in `row` of the tokens of `row_of(pairs, row, members)`."""
    places, start = list(range(row.prefix)), row.prefix
    for member in row.members:
        end = start + len(pairs[member].input_ids) - row.prefix
        if member in members:
            places += range(start, end)
        start = end
    return torch.tensor(places)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as values to add to attention scores, a form that every attention implementation accepts."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _attention_mask(model: Any, row: PackedRow, device: torch.device) -> Tensor | dict[str, Tensor]:
    """The additive mask; one per layer type where some layers have a sliding window and a sample is longer."""
    window, kinds = sliding_window(model), _layer_types(model)
    mask, places = row.attends.whole.to(device), row.position_ids[0].to(device)
    whole = _additive(mask, model.dtype)
    if window is None or int(row.position_ids.max()) < window:
        return whole
    near = _additive(mask & (places[:, None] - places[None, :] < window), model.dtype)
    return near if kinds == {_SLIDING} else dict.fromkeys(kinds, whole) | {_SLIDING: near}


def _layer_types(model: Any) -> set[str]:
    """The types of the model's layers, as transformers names them."""
    return set(getattr(model.config.get_text_config(), "layer_types", None) or [_SLIDING])


def sliding_window(model: Any) -> int | None:
    """Width in tokens of the layers' sliding window; None where no layer has one."""
    window: int | None = getattr(model.config.get_text_config(), "sliding_window", None)
    return window if _SLIDING in _layer_types(model) else None


class AnswerTokens(NamedTuple):
    """Per answer token: its cross-entropy (nats) and whether the model would have chosen it greedily."""

    loss: Tensor
    greedy: Tensor
    owner: Tensor
    order: Tensor


def decoder_inputs(model: Any, row: PackedRow) -> dict[str, Any]:
    """The row as arguments of the decoder of `model`."""
    device = next(model.parameters()).device
    inputs: dict[str, Any] = {"input_ids": row.input_ids.to(device), "position_ids": row.position_ids.to(device)}
    window = sliding_window(model)
    fits_window = window is None or int(row.position_ids.max()) < window
    if supports_chunks(model) and supports_varlen(model) and fits_window:
        inputs["attention_mask"] = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=device)  # None would mean causal
        return inputs | {"varlen": plan_varlen(row.prefix, row.ends, device)}
    inputs["attention_mask"] = _attention_mask(model, row, device)
    return inputs | {"chunks": row.chunks} if supports_chunks(model) else inputs


def answer_tokens(model: Any, row: PackedRow, below: tuple[int, Tensor] | None = None) -> AnswerTokens:
    """Run one packed row and evaluate its answer tokens; the loss is differentiable.

    Args:
        model: a transformers causal language model; its output layer runs at answer positions only.
        row: a row made by `pack`.
        below: number of first blocks to skip and their output for the row (`states_below`); None runs all blocks.

    Returns:
        float32 losses (A,) with the row's `owner` and `order`.
    """
    inputs = decoder_inputs(model, row)
    if below is not None:
        del inputs["input_ids"]
        inputs["inputs_embeds"] = below[1]
    positions = row.predict_at.to(inputs["position_ids"].device)
    start = starting_at(model, below[0]) if below is not None else nullcontext()
    with start, chunked_attention(model):
        logits = model(**inputs, use_cache=False, logits_to_keep=positions).logits[0].float()
    targets = row.targets.to(logits.device)
    loss = F.cross_entropy(logits, targets, reduction="none")
    return AnswerTokens(loss, (logits.argmax(-1) == targets), row.owner, row.order)
