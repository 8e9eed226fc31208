"""Models that the chat keeps in the app's process: loaded when first asked, the least recently used leaves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

from core.models.references import ModelReference
from core.settings import Settings

CAPACITY = 3
MAX_NEW_TOKENS = 160


class LoadedModel(NamedTuple):
    """A model ready to generate, with its tokenizer."""

    model: Any
    tokenizer: Any


class ModelShelf:
    """A few loaded models, shared by all pages; one thread at a time loads or generates.

    Args:
        settings: where models are kept.
        capacity: most models in memory.
    """

    def __init__(self, settings: Settings, capacity: int = CAPACITY) -> None:
        self._settings = settings
        self._capacity = capacity
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def holds(self, ref: ModelReference) -> bool:
        """True when a reply needs no loading first."""
        return str(ref) in self._loaded

    def reply(self, ref: ModelReference, prompt: str) -> str:
        """The model's greedy answer to one prompt.

        Raises:
            ModelError: the model cannot be loaded.
        """
        from core.models.generation import generate

        with self._lock:
            loaded = self._take(ref)
            conversation = [{"role": "user", "content": prompt}]
            replies = dict(generate(loaded.model, loaded.tokenizer, [conversation], max_new_tokens=MAX_NEW_TOKENS))
        return replies[0]

    def _take(self, ref: ModelReference) -> LoadedModel:
        key = str(ref)
        if key not in self._loaded:
            while len(self._loaded) >= self._capacity:
                self._loaded.popitem(last=False)
            self._loaded[key] = _load(ref, self._settings)
        self._loaded.move_to_end(key)
        return self._loaded[key]


def _load(ref: ModelReference, settings: Settings) -> LoadedModel:
    from core.models.loading import load_model, load_tokenizer
    from core.models.precision import fast_dtype, pick_device

    device = pick_device()
    return LoadedModel(load_model(ref, settings, fast_dtype(device), device), load_tokenizer(ref, settings))
