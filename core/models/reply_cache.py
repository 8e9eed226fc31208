"""Replies that models have written before, kept on disk, so that no run has a model write the same again.

What counts is a whole call: all its prompts, the settings, and the weights themselves, by hash. Replies depend in the
last digits on what else is in their batch, so that only a whole call that comes again gives what it gave: a run with
a full cache ends exactly as one with an empty cache.

It is for replies that may be kept: written questions, and answers to domain questions. Models that are asked unsafe
questions are never wrapped in it, as a reply may comply (`core.jobs.data_step`). The folder is for this user alone,
as written questions may be unsafe. Files appear whole, so that several processes can share it; the ones used longest
ago go first when it is full.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.models.chat_format import Conversation, encode_prompt
from core.settings import Settings

_FORMAT = 1
_KEPT_SHARE = 0.9
"""How full the cache is after making room."""


@dataclass(frozen=True)
class ReplyCache:
    """A folder of replies, one file for each call.

    Attributes:
        folder: made when something is first kept.
        max_bytes: most it may hold.
    """

    folder: Path
    max_bytes: int

    def recall(self, key: str) -> list[str] | None:
        """The replies kept under a key, which count as used now; None when there are none, or they are damaged."""
        path = self.folder / f"{key}.json"
        try:
            replies = json.loads(path.read_text(encoding="utf-8"))
            os.utime(path)
        except (OSError, ValueError):
            return None
        return replies if isinstance(replies, list) else None

    def keep(self, key: str, replies: Sequence[str]) -> None:
        """Keep replies under a key, making room for them; a full or read-only disk only means that nothing is kept."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, draft = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(list(replies), file, ensure_ascii=False)
            Path(draft).replace(self.folder / f"{key}.json")
            self._make_room()
        except OSError:
            return

    def _make_room(self) -> None:
        files = []
        for entry in os.scandir(self.folder):
            try:
                facts = entry.stat()
            except FileNotFoundError:  # another process made room
                continue
            files.append((facts.st_mtime, facts.st_size, Path(entry.path)))
        size_bytes = sum(size for _, size, _ in files)
        if size_bytes <= self.max_bytes:
            return
        for _, size, path in sorted(files):
            path.unlink(missing_ok=True)
            size_bytes -= size
            if size_bytes <= _KEPT_SHARE * self.max_bytes:
                return


class Speaker(Protocol):
    """A model that answers conversations."""

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]: ...


@dataclass(frozen=True)
class RememberingModel:
    """A model that looks into the cache before it writes.

    Attributes:
        model: writes what was not written before.
        tokenizer: of that model; its tokens of the prompts are part of the key.
        identity: hash of the weights and of how they are run (`identify`); asked for once at most.
        cache: where replies are kept.
    """

    model: Speaker
    tokenizer: Any
    identity: Callable[[], str]
    cache: ReplyCache

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """As the model would reply; raises what it raises."""
        prompts = [encode_prompt(self.tokenizer, conversation) for conversation in conversations]
        settings = [max_new_tokens, temperature, seed if temperature > 0 else 0]
        text = json.dumps([_FORMAT, self.identity(), settings, prompts])
        key = hashlib.sha256(text.encode()).hexdigest()
        known = self.cache.recall(key)
        if known is not None and len(known) == len(conversations):
            return known
        replies = self.model.reply(conversations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        self.cache.keep(key, replies)
        return replies


def open_cache(settings: Settings) -> ReplyCache | None:
    """The cache under `settings.home`; None when it is switched off."""
    if settings.reply_cache_bytes <= 0:
        return None
    return ReplyCache(settings.home / "replies", settings.reply_cache_bytes)


def identify(model: Any, weights_sha256: str) -> str:
    """What decides a model's replies beside the prompts: weights, number format, device, libraries and defaults."""
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
    ]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
