"""The settings of a model that hold while it writes replies: its penalties and suppressed tokens, nothing else.

A published `generation_config.json` also holds what belongs to the machine or program it was written for: a static
cache, beams, several replies to one prompt, other forms of output. Replies here are greedy or seeded samples, one to a
prompt, with a cache that continues a shared prefix, so those settings do not apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PENALTIES = ("repetition_penalty",)
_COUNTS = ("no_repeat_ngram_size", "min_new_tokens")
_TOKENS = ("suppress_tokens", "begin_suppress_tokens")


@contextmanager
def decoding_settings(model: Any) -> Iterator[None]:
    """Let `model.generate` see only the settings that choose tokens; the model's own are put back afterwards.

    Args:
        model: a loaded model.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig(**_kept(own, model.get_input_embeddings().weight.shape[0]))
    try:
        yield
    finally:
        model.generation_config = own


def _kept(own: Any, rows: int) -> dict[str, Any]:
    """The usable settings that choose tokens.

    Args:
        own: the model's generation configuration.
        rows: number of tokens of the model.
    """
    kept: dict[str, Any] = {}
    for name in _PENALTIES:
        value = getattr(own, name, None)
        if isinstance(value, int | float) and value > 0:
            kept[name] = float(value)
    for name in _COUNTS:
        value = getattr(own, name, None)
        if isinstance(value, int) and value > 0:
            kept[name] = value
    for name in _TOKENS:
        if tokens := [token for token in getattr(own, name, None) or () if _is_row(token, rows)]:
            kept[name] = tokens
    words = [word for word in getattr(own, "bad_words_ids", None) or () if word and all(_is_row(t, rows) for t in word)]
    return {**kept, "bad_words_ids": words} if words else kept


def _is_row(token: Any, rows: int) -> bool:
    return isinstance(token, int) and 0 <= token < rows
