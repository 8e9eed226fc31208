"""Hashes of the weights that a pool's live model has held, each computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.merging.engine import MergePool
from core.models.fingerprint import WeightHash, start_hash


class PoolHashes:
    """Hashes what is written into the live model, and remembers it: the same parent or recipe gives the same weights.

    Args:
        merge: writes parents and candidates into the live model.
    """

    def __init__(self, merge: MergePool) -> None:
        self._merge = merge
        self._known: dict[tuple[str, int], WeightHash] = {}

    def start(self, model: Any) -> Callable[[], WeightHash]:
        """Start to hash the weights that `model` holds now; the returned function waits for the hash.

        On a GPU this runs in the background (`core.models.fingerprint.start_hash`); nothing may be written into the
        live model until the returned function has been called.

        Args:
            model: the live model, or a member that shares its weights.
        """
        key = (self._merge.written or "", id(model))
        if key in self._known:
            return lambda: self._known[key]
        waiting = start_hash(model, parts=True)

        def wait() -> WeightHash:
            found = waiting()
            if key[0]:
                self._known[key] = found
            return found

        return wait

    def sha256(self, model: Any) -> str:
        """The hash of the weights that `model` holds now."""
        return self.start(model)().sha256
