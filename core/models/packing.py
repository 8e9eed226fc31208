"""Answer losses of many samples in few dense rows: teacher forcing without padding.

Samples are laid one after another in rows of about `row_tokens` tokens. The tokens all samples of a row start with
(the template's system turn) are laid once and seen by each; a block mask keeps samples from seeing one another, and
positions restart after the shared prefix. Every loss equals that of the sample run alone, up to rounding. Attention
goes stretch by stretch through the row (`core.models.packed_attention`).
The vocabulary projection is done at answer positions only. Search scores with this, and adapters train with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from core.models.chat_format import EncodedPair
from core.models.lower_blocks import starting_at
from core.models.packed_attention import Stretches, attending_in_stretches, stretches_of, takes_stretches
from core.models.varlen_attention import plan_varlen, takes_varlen

DEFAULT_ROW_TOKENS = 1024
"""Short rows repeat the prefix, and processors like long ones; the stretches keep attention cheap."""
STRETCH_TOKENS = 64
"""Fewest tokens that attention takes at a time: 64 to 100 did best on two cores."""
_OPENING_TOKENS = 12
_SLIDING = "sliding_attention"  # transformers' name


class PackedRow(NamedTuple):
    """One dense row of several samples.

    Attributes:
        input_ids: (1, L) tokens: the shared prefix, then each sample's own tokens.
        position_ids: (1, L) positions each sample would have alone.
        mask: (1, 1, L, L) True where a token (row) may see another (column).
        predict_at: (A,) places in the row whose next token is an answer token.
        targets: (A,) the answer tokens.
        owner: (A,) number of the sample, in the caller's order, of each answer token.
        order: (A,) place of each answer token within its answer, 0 = first.
        members: numbers of the samples laid in the row, in order.
        prefix: length of the shared prefix.
        stretches: where attention may cut the row.
        ends: place after the last token of each sample, in order.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    predict_at: Tensor
    targets: Tensor
    owner: Tensor
    order: Tensor
    members: tuple[int, ...]
    prefix: int
    stretches: Stretches
    ends: tuple[int, ...]


def pack(pairs: Sequence[EncodedPair], row_tokens: int = DEFAULT_ROW_TOKENS) -> list[PackedRow]:
    """Lay `pairs` into rows of at most `row_tokens` tokens (a longer sample gets a row of its own)."""
    rows: list[PackedRow] = []
    for kin in _by_opening(pairs):
        prefix = _common_prefix([pairs[index] for index in kin])
        group: list[int] = []
        used = prefix
        for index in kin:
            own = len(pairs[index].input_ids) - prefix
            if group and used + own > row_tokens:
                rows.append(_lay(pairs, group, prefix))
                group, used = [], prefix
            group.append(index)
            used += own
        rows.append(_lay(pairs, group, prefix))
    return rows


def _by_opening(pairs: Sequence[EncodedPair]) -> list[list[int]]:
    """Places of samples that begin alike, together: those with different system turns share no prefix."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(tuple(pair.input_ids[:_OPENING_TOKENS]), []).append(index)
    return list(groups.values())


def _common_prefix(pairs: Sequence[EncodedPair]) -> int:
    """Length of the token prefix that all samples share, short of every sample's last prompt token."""
    if len(pairs) < 2:
        return 0
    first = pairs[0].input_ids
    length = min(pair.answer_start - 1 for pair in pairs)
    for pair in pairs[1:]:
        while length > 0 and pair.input_ids[:length] != first[:length]:
            length -= 1
    return max(length, 0)


def _lay(pairs: Sequence[EncodedPair], group: Sequence[int], prefix: int) -> PackedRow:
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
    segment_ids = torch.tensor(segments)
    same = (segment_ids[:, None] == segment_ids[None, :]) | (segment_ids[None, :] == 0)
    return PackedRow(
        torch.tensor([tokens]),
        torch.tensor([positions]),
        same.tril()[None, None],
        torch.tensor(predict_at),
        torch.tensor(targets),
        torch.tensor(owner),
        torch.tensor(order),
        tuple(group),
        prefix,
        stretches_of(segments, prefix, STRETCH_TOKENS),
        tuple(ends),
    )


def row_of(pairs: Sequence[EncodedPair], row: PackedRow, members: Sequence[int]) -> PackedRow:
    """Some of a row's samples in a row of their own; `pairs` are those that `row` was laid from."""
    return row if tuple(members) == row.members else _lay(pairs, members, row.prefix)


def places_in(row: PackedRow, pairs: Sequence[EncodedPair], members: Sequence[int]) -> Tensor:
    """Where the tokens of `row_of(pairs, row, members)` stand in `row`."""
    places, start = list(range(row.prefix)), row.prefix
    for member in row.members:
        end = start + len(pairs[member].input_ids) - row.prefix
        if member in members:
            places += range(start, end)
        start = end
    return torch.tensor(places)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as numbers to add to attention scores: every attention implementation reads it the same way."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _attention_mask(model: Any, row: PackedRow, device: torch.device) -> Tensor | dict[str, Tensor]:
    """What tokens may see; by kind of block where some look no further back than a window that a sample exceeds."""
    window, kinds = _window_of(model), _kinds_of(model)
    mask, places = row.mask.to(device), row.position_ids[0].to(device)
    whole = _additive(mask, model.dtype)
    if window is None or int(row.position_ids.max()) < window:
        return whole
    near = _additive(mask & (places[:, None] - places[None, :] < window), model.dtype)
    return near if kinds == {_SLIDING} else dict.fromkeys(kinds, whole) | {_SLIDING: near}


def _kinds_of(model: Any) -> set[str]:
    """transformers' names of the kinds of blocks."""
    return set(getattr(model.config.get_text_config(), "layer_types", None) or [_SLIDING])


def _window_of(model: Any) -> int | None:
    """How many tokens some blocks look back, themselves included; None where all look back to the beginning."""
    window: int | None = getattr(model.config.get_text_config(), "sliding_window", None)
    return window if _SLIDING in _kinds_of(model) else None


class AnswerTokens(NamedTuple):
    """Per answer token: its cross-entropy (nats) and whether the model would have chosen it greedily."""

    loss: Tensor
    greedy: Tensor
    owner: Tensor
    order: Tensor


def decoder_inputs(model: Any, row: PackedRow) -> dict[str, Any]:
    """The row as a decoder of `model` takes it."""
    device = next(model.parameters()).device
    inputs: dict[str, Any] = {"input_ids": row.input_ids.to(device), "position_ids": row.position_ids.to(device)}
    window = _window_of(model)
    if takes_stretches(model) and takes_varlen(model) and (window is None or int(row.position_ids.max()) < window):
        inputs["attention_mask"] = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=device)  # None would mean causal
        return inputs | {"varlen": plan_varlen(row.prefix, row.ends, device)}
    inputs["attention_mask"] = _attention_mask(model, row, device)
    return inputs | {"stretches": row.stretches} if takes_stretches(model) else inputs


def answer_tokens(model: Any, row: PackedRow, below: tuple[int, Tensor] | None = None) -> AnswerTokens:
    """Run one packed row and look at its answer tokens; differentiable in the loss.

    Args:
        model: a transformers causal language model; its own head makes the logits, at answer positions only.
        row: a row made by `pack`.
        below: number of lower blocks to leave out and what they make of the row (`states_below`); None runs all.

    Returns:
        float32 losses (A,) with the row's `owner` and `order`.
    """
    inputs = decoder_inputs(model, row)
    if below is not None:
        del inputs["input_ids"]
        inputs["inputs_embeds"] = below[1]
    kept = row.predict_at.to(inputs["position_ids"].device)
    start = starting_at(model, below[0]) if below is not None else nullcontext()
    with start, attending_in_stretches(model):
        logits = model(**inputs, use_cache=False, logits_to_keep=kept).logits[0].float()
    targets = row.targets.to(logits.device)
    loss = F.cross_entropy(logits, targets, reduction="none")
    return AnswerTokens(loss, (logits.argmax(-1) == targets), row.owner, row.order)
