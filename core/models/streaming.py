"""Writes one reply piece by piece, for a person who reads along; whole batches are `core.models.generation`.

`generate` of transformers works in a thread and passes each token to a `TextIteratorStreamer`, which decodes whole
words.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from core.errors import DataError
from core.models.chat_format import Conversation, encode_prompt
from core.models.decoding import decoding_settings
from core.models.end_tokens import end_token_ids, padding_id
from core.models.generation import contiguous_before_head, sampling_options
from core.models.out_of_memory import translate_oom

WAIT_S = 600.0
"""Longest time to the next token, such as the first one after a long prompt on a slow processor."""


class Decoding(NamedTuple):
    """How a reply is written.

    Attributes:
        max_new_tokens: most tokens of the reply.
        temperature: 0 for greedy decoding, else the sampling temperature.
        seed: of the sampling.
    """

    max_new_tokens: int = 160
    temperature: float = 0.0
    seed: int = 0


def stream_reply(model: Any, tokenizer: Any, conversation: Conversation, decoding: Decoding) -> Iterator[str]:
    """Yield the reply so far each time that it has grown, and at the end the whole reply.

    Closing the iterator ends the generation at the next token.

    Args:
        model: a loaded causal language model.
        tokenizer: its tokenizer.
        conversation: chat messages that end with the user's turn.
        decoding: how the reply is written.

    Raises:
        ModelError: the chat template does not accept the conversation.
        DataError: the conversation fills the model's context (code `context-full`).
        OutOfMemory: the conversation does not fit into memory.
    """
    from transformers import TextIteratorStreamer

    tokens = encode_prompt(tokenizer, conversation)
    decoding = decoding._replace(max_new_tokens=min(decoding.max_new_tokens, _room(model, len(tokens), decoding)))
    prompt = torch.tensor([tokens], device=model.device)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=WAIT_S, skip_special_tokens=True)
    stopped, written = threading.Event(), ""
    with ThreadPoolExecutor(1, thread_name_prefix="reply") as executor, translate_oom("Writing a reply"):
        writing = executor.submit(_write, model, tokenizer, prompt, decoding, streamer, stopped)
        try:
            for piece in streamer:
                written += piece
                if piece.strip():
                    yield written.strip()
        finally:
            stopped.set()
        writing.result()
    yield written.strip()


def _room(model: Any, prompt: int, decoding: Decoding) -> int:
    """Tokens of the model's context that `prompt` tokens leave; raises `DataError` if none are left."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", prompt + decoding.max_new_tokens)
    if context <= prompt:
        raise DataError("The conversation is as long as the model's context.", "Start a new chat.", code="context-full")
    return int(context - prompt)


def _write(
    model: Any, tokenizer: Any, prompt: torch.Tensor, decoding: Decoding, streamer: Any, stopped: threading.Event
) -> None:
    """Generate a reply into `streamer`, which also ends after an error; `stopped` ends it at the next token."""
    from transformers import StoppingCriteriaList

    def is_stopped(ids: torch.Tensor, _scores: Any, **_options: Any) -> torch.Tensor:
        return torch.full((ids.shape[0],), stopped.is_set(), device=ids.device)

    ends = end_token_ids(model, tokenizer)
    if decoding.temperature > 0:
        torch.manual_seed(decoding.seed)
    try:
        with torch.inference_mode(), contiguous_before_head(model), decoding_settings(model):
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=decoding.max_new_tokens,
                pad_token_id=padding_id(tokenizer, ends),
                eos_token_id=ends or None,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([is_stopped]),
                **sampling_options(decoding.temperature),
            )
    finally:
        streamer.end()
