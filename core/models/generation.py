"""Generates replies to many conversations in batches and yields (index, reply) pairs as batches finish.

Prompts are sorted by length, batched by a token budget, padded, and decoded with transformers' own `generate`. A prefix
that all prompts of a batch share, such as the system turn, is processed once. Decoding is greedy by default; with a
temperature, sampling is seeded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from core.errors import DataError
from core.models.chat_format import Conversation, encode_prompt
from core.models.decoding import decoding_settings
from core.models.end_tokens import end_token_ids, padding_id
from core.models.out_of_memory import split_on_oom
from core.models.reply_budget import token_budget as budget_for


def generate(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    token_budget: int | None = None,
    opening: str = "",
    unfinished: list[int] | None = None,
) -> Iterator[tuple[int, str]]:
    """Answer every conversation.

    Args:
        model: a loaded causal language model.
        tokenizer: its tokenizer.
        conversations: chat messages; each list ends with the user's turn.
        max_new_tokens: maximum number of tokens per reply.
        temperature: 0 for greedy decoding, else the sampling temperature.
        seed: of the sampling; greedy decoding ignores it.
        token_budget: maximum number of tokens (prompt and reply, padded) in one batch; None = the budget of
            `core.models.reply_budget`.
        opening: text that every reply is forced to start with; the yielded replies do not contain it.
        unfinished: gets the index of each reply that reached `max_new_tokens` without an end token.

    Yields:
        (index into `conversations`, reply text without special tokens), batch by batch. A batch that does not fit into
        memory is split.

    Raises:
        OutOfMemory: a single conversation does not fit.
    """
    forced = list(tokenizer(opening, add_special_tokens=False)["input_ids"])
    prompts = [encode_prompt(tokenizer, conversation) + forced for conversation in conversations]
    if temperature > 0:
        torch.manual_seed(seed)
    budget = budget_for(model, sampled=temperature > 0) if token_budget is None else token_budget
    for batch in _batches(prompts, max_new_tokens, budget):
        decode = partial(_decode_places, model, tokenizer, prompts, max_new_tokens, temperature, unfinished)
        for answered in split_on_oom(batch, decode, "Writing a reply"):
            yield from answered


def _decode_places(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    temperature: float,
    unfinished: list[int] | None,
    places: Sequence[int],
) -> list[tuple[int, str]]:
    """Replies to the prompts at `places`, decoded as one batch, with their places."""
    cut = set[int]()
    batch = [prompts[i] for i in places]
    try:
        replies = _decode_batch(model, tokenizer, batch, max_new_tokens, temperature, cut)
    except IndexError as error:  # learned positions end with the context
        context, longest = model.config.get_text_config().max_position_embeddings, max(map(len, batch))
        if longest + max_new_tokens <= context:
            raise
        raise DataError(
            f"A prompt of {longest:,} tokens and a reply of {max_new_tokens:,} exceed the model's context of "
            f"{context:,} tokens.",
            "Shorten the prompt, lower reply_tokens, or choose a model with a longer context.",
            code="context-full",
        ) from error
    if unfinished is not None:
        unfinished += [places[row] for row in sorted(cut)]
    return list(zip(places, replies, strict=True))


def generate_all(model: Any, tokenizer: Any, conversations: Sequence[Conversation], **options: Any) -> list[str]:
    """The replies of `generate` in the order of `conversations`."""
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
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int, temperature: float, cut: set[int]
) -> list[str]:
    """Replies to a batch of prompts; the rows of those without an end token are added to `cut`."""
    ends = end_token_ids(model, tokenizer)
    pad = padding_id(tokenizer, ends)
    shared = 0 if model._is_stateful else _shared_prefix(prompts)  # a recurrent state is no cache
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[*p[:shared], *[pad] * (width - len(p)), *p[shared:]] for p in prompts])
    mask = torch.tensor([[1] * shared + [0] * (width - len(p)) + [1] * (len(p) - shared) for p in prompts])
    with torch.inference_mode(), contiguous_before_head(model), decoding_settings(model):
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            past_key_values=_prefix_cache(model, prompts[0][:shared], len(prompts)) if shared else None,
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            eos_token_id=ends or None,
            **sampling_options(temperature),
        )
    written = output[:, width:]
    stops = set(ends)
    cut.update(row for row, tokens in enumerate(written.tolist()) if stops.isdisjoint(tokens))
    return [str(text).strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


def sampling_options(temperature: float) -> dict[str, Any]:
    """Arguments of transformers' `generate`: greedy at temperature 0, else sampling among the 50 most likely tokens.

    Only top-k: top-p would sort the whole vocabulary for every token, which costs as much as the model itself.
    """
    if temperature <= 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_k": 50, "top_p": 1.0}


@contextmanager
def contiguous_before_head(model: Any) -> Iterator[None]:
    """Make the last hidden states contiguous before the vocabulary projection.

    After a prompt they are a strided slice, which torch multiplies row by row, with a copy of the whole output layer
    for each row. On a CPU this takes as long as the rest of a short reply.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _head, inputs: (inputs[0].contiguous(), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


def _shared_prefix(prompts: Sequence[list[int]]) -> int:
    """Number of tokens that all prompts of a batch start with; 0 for a single prompt."""
    if len(prompts) < 2:
        return 0
    shortest, longest = min(prompts), max(prompts)  # in lexical order, all others lie between the two
    most = min(len(prompt) for prompt in prompts) - 1
    return next((i for i in range(most) if shortest[i] != longest[i]), most)


def _prefix_cache(model: Any, prefix: list[int], rows: int) -> Any:
    """The key-value cache after `prefix`, computed once and repeated for every row of a batch."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    ids = torch.tensor([prefix], device=model.device)
    model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    return cache
