"""`chat`: chat with one model in the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from core.cli.models import LoadedPair, load_pair
from core.cli.output import results_only, say
from core.errors import DataError
from core.settings import Settings

MAX_NEW_TOKENS = 512


def add_commands(commands: Any) -> None:
    """Add `chat` to the command line."""
    parser = commands.add_parser("chat", help="chat with a model; one message per line, Ctrl-D ends the chat")
    parser.add_argument("model", metavar="MODEL", help="Hub id, id@revision, folder, base+lora, or demo/NAME")
    parser.add_argument("--system", metavar="TEXT", help="system message")
    parser.set_defaults(handler=_chat)


def _chat(arguments: argparse.Namespace, settings: Settings) -> int:
    with results_only():
        pair = load_pair(arguments.model, settings)
    turns = [{"role": "system", "content": arguments.system}] if arguments.system else []
    say("One message per line; Ctrl-D ends the chat.")
    for line in sys.stdin:
        if message := line.strip():
            turns.append({"role": "user", "content": message})
            turns.append({"role": "assistant", "content": stream_reply(pair, turns)})
    return 0


def stream_reply(pair: LoadedPair, turns: list[dict[str, str]]) -> str:
    """Print the model's greedy reply while it is generated, and return it.

    Args:
        pair: the model and its tokenizer.
        turns: the conversation, ending with the user's turn.

    Raises:
        DataError: the conversation fills the model's context (code `context-full`).
    """
    import torch
    from transformers import TextStreamer

    from core.models.chat_format import encode_prompt
    from core.models.decoding import decoding_settings
    from core.models.end_tokens import end_token_ids, padding_id

    model, tokenizer = pair
    prompt = encode_prompt(tokenizer, turns)
    room = getattr(model.config, "max_position_embeddings", len(prompt) + MAX_NEW_TOKENS) - len(prompt)
    if room < 1:
        raise DataError("The conversation is as long as the model's context.", "Start a new chat.", code="context-full")
    ids, ends = torch.tensor([prompt], device=model.device), end_token_ids(model, tokenizer)
    with torch.inference_mode(), decoding_settings(model):
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=min(room, MAX_NEW_TOKENS),
            do_sample=False,
            pad_token_id=padding_id(tokenizer, ends),
            eos_token_id=ends or None,
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
        )
    return str(tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)).strip()
