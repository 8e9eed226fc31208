"""Loading a model and its tokenizer for a command, on a GPU if there is one."""

from __future__ import annotations

from typing import Any, NamedTuple

from core.cli.output import say
from core.settings import Settings


class LoadedPair(NamedTuple):
    """A model that is ready to generate, and its tokenizer."""

    model: Any
    tokenizer: Any


def load_pair(text: str, settings: Settings) -> LoadedPair:
    """Load a MODEL argument, on a GPU if there is one, else on the CPU.

    Raises:
        ModelError: the reference is invalid, or the model is unavailable or cannot be loaded.
    """
    import torch

    from core.models.loading import load_model, load_tokenizer
    from core.models.references import parse_reference

    reference = parse_reference(text, settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    say(f"loading {text} on {device}")
    return LoadedPair(load_model(reference, settings, device=device), load_tokenizer(reference, settings))
