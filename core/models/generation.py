"""Batched text generation: many conversations in, (index, reply) pairs out as their batches finish.

Prompts are sorted by length and batched by a token budget, left-padded, and decoded with transformers' own
`generate`. Greedy by default; with a temperature, sampling is seeded per call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from core.models.chat_format import Conversation, encode_prompt

DEFAULT_TOKEN_BUDGET = 6144


def generate(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> Iterator[tuple[int, str]]:
    """Answer every conversation.

    Args:
        conversations: chat messages, each list ending with the user's turn.
        max_new_tokens: most tokens per reply.
        temperature: 0 for greedy decoding, else the sampling temperature.
        seed: seed of the sampling; greedy decoding ignores it.
        token_budget: most tokens (prompt and reply, padded) in one batch.

    Yields:
        (index into `conversations`, reply text without special tokens), batch by batch.
    """
    prompts = [encode_prompt(tokenizer, conversation) for conversation in conversations]
    if temperature > 0:
        torch.manual_seed(seed)
    for batch in _batches(prompts, max_new_tokens, token_budget):
        replies = _decode_batch(model, tokenizer, [prompts[i] for i in batch], max_new_tokens, temperature)
        yield from zip(batch, replies, strict=True)


def generate_all(model: Any, tokenizer: Any, conversations: Sequence[Conversation], **options: Any) -> list[str]:
    """`generate`, collected in the order of `conversations`."""
    replies = [""] * len(conversations)
    for index, reply in generate(model, tokenizer, conversations, **options):
        replies[index] = reply
    return replies


def _batches(prompts: Sequence[list[int]], max_new_tokens: int, token_budget: int) -> Iterator[list[int]]:
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    while by_length:
        widest = len(prompts[by_length[0]]) + max_new_tokens
        size = max(1, token_budget // widest)
        yield by_length[:size]
        by_length = by_length[size:]


def _decode_batch(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int, temperature: float
) -> list[str]:
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_p": 0.95} if temperature > 0 else {"do_sample": False}
    )
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            **sampling,
        )
    return [str(text).strip() for text in tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)]
