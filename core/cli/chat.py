"""`chat`: chat with one model in the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from core.cli.models import LoadedPair, load_pair
from core.cli.output import results_only, say
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
    from core.models import streaming

    shown = ""
    for written in streaming.stream_reply(*pair, turns, streaming.Decoding(MAX_NEW_TOKENS)):
        sys.stdout.write(written[len(shown) :])
        sys.stdout.flush()
        shown = written
    sys.stdout.write("\n")
    return shown
