"""Loading a model and its tokenizer for a command, on a GPU if there is one."""

from __future__ import annotations

from typing import Any, NamedTuple

from core.cli.output import say
from core.contracts.number_formats import NumberFormat
from core.settings import Settings


class LoadedPair(NamedTuple):
    """A model that is ready to generate, and its tokenizer."""

    model: Any
    tokenizer: Any


def load_pair(text: str, settings: Settings, dtype: NumberFormat = "auto") -> LoadedPair:
    """Load a MODEL argument, on a GPU if there is one, else on the CPU.

    Args:
        text: the argument.
        settings: of this machine.
        dtype: number format, as `pool.dtype` of a run.

    Raises:
        ModelError: the reference is invalid, or the model is unavailable or cannot be loaded.
    """
    from core.models.loading import load_model, load_tokenizer
    from core.models.precision import choose_dtype, pick_device
    from core.models.references import parse_reference

    reference = parse_reference(text, settings)
    device = pick_device()
    chosen = choose_dtype(dtype, settings, device)
    say(f"loading {text} on {device.type} in {chosen.name} ({chosen.reason})")
    return LoadedPair(load_model(reference, settings, chosen.dtype, device), load_tokenizer(reference, settings))
