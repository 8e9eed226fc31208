"""Caches replies of models on disk, so that a later run need not generate them again.

The key of an entry is a whole call: all its prompts, the settings, and a hash of the weights. Replies depend slightly,
through rounding, on the other prompts of their batch. Only an identical call gives identical replies, so that a run
with a full cache gives exactly the results of one with an empty cache.

Only written questions and answers to domain questions are cached. Models that get unsafe questions never use the cache,
because a reply may be harmful (`core.jobs.data_step`). Only this user can read the folder, because written questions
may be unsafe. Files are written atomically, so that several processes can share the cache. When it is full, the least
recently used files are deleted first.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.durable import write_atomic
from core.errors import RunError
from core.models.chat_format import Conversation, encode_prompt
from core.models.end_tokens import end_of_turn
from core.models.own_settings import configuration_values
from core.settings import Settings

_FORMAT = 2
_SHARE_AFTER_EVICTION = 0.9
"""How full the cache is after old files were deleted."""


@dataclass(frozen=True)
class ReplyCache:
    """A folder with one file of replies per call.

    Attributes:
        folder: created when the first replies are stored.
        max_bytes: maximum total size of the files.
    """

    folder: Path
    max_bytes: int

    def get(self, key: str) -> list[str] | None:
        """The replies stored under a key, marked as just used; None without an entry, or when it is damaged."""
        path = self.folder / f"{key}.json"
        try:
            replies = json.loads(path.read_text(encoding="utf-8"))
            os.utime(path)
        except (OSError, ValueError):
            return None
        return replies if isinstance(replies, list) else None

    def put(self, key: str, replies: Sequence[str]) -> None:
        """Store replies under a key and delete old files; does nothing on a full or read-only disk."""
        with suppress(OSError, RunError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(self.folder / f"{key}.json", json.dumps(list(replies), ensure_ascii=False))
            self._evict()

    def _evict(self) -> None:
        files = []
        for entry in os.scandir(self.folder):
            try:
                facts = entry.stat()
            except FileNotFoundError:  # deleted by another process
                continue
            files.append((facts.st_mtime, facts.st_size, Path(entry.path)))
        size_bytes = sum(size for _, size, _ in files)
        if size_bytes <= self.max_bytes:
            return
        for _, size, path in sorted(files):
            path.unlink(missing_ok=True)
            size_bytes -= size
            if size_bytes <= _SHARE_AFTER_EVICTION * self.max_bytes:
                return


class ReplyingModel(Protocol):
    """A model that answers conversations."""

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]: ...


@dataclass(frozen=True)
class CachedModel:
    """A model that looks up its replies in the cache before it generates them.

    Attributes:
        model: generates replies that are not in the cache.
        tokenizer: of that model; the prompts' token ids are part of the key.
        identity: returns the hash of the weights and of how they are run (`identify`).
        cache: of the replies.
    """

    model: ReplyingModel
    tokenizer: Any
    identity: Callable[[], str]
    cache: ReplyCache

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """The model's replies; raises what the model raises."""
        prompts = [encode_prompt(self.tokenizer, conversation) for conversation in conversations]
        settings = [max_new_tokens, temperature, seed if temperature > 0 else 0, *self._ends()]
        text = json.dumps([_FORMAT, self.identity(), settings, prompts])
        key = hashlib.sha256(text.encode()).hexdigest()
        known = self.cache.get(key)
        if known is not None and len(known) == len(conversations):
            return known
        replies = self.model.reply(conversations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        self.cache.put(key, replies)
        return replies

    def _ends(self) -> list[int | None]:
        """The end tokens that the tokenizer names; those of the model belong to its identity."""
        return [self.tokenizer.eos_token_id, end_of_turn(self.tokenizer)]


def open_cache(settings: Settings) -> ReplyCache | None:
    """The cache under `settings.home`; None when it is disabled."""
    if settings.reply_cache_bytes <= 0:
        return None
    return ReplyCache(settings.home / "replies", settings.reply_cache_bytes)


def identify(model: Any, weights_sha256: str) -> str:
    """Hash of all that determines a model's replies besides the prompts: weights, configurations, device, libraries."""
    import torch
    import transformers

    config = getattr(model, "generation_config", None)
    parts = [
        weights_sha256,
        str(model.dtype),
        model.device.type,
        torch.__version__,
        transformers.__version__,
        config.to_json_string(use_diff=True) if config is not None else "",
        json.dumps(configuration_values(model.config), sort_keys=True, default=str),
    ]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
