"""The cache of replies: identical calls are answered from it, and it never exceeds its size limit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.jobs.live_pool import LoadedModel
from core.models.chat_format import Conversation
from core.models.fingerprint import sha256_of_model
from core.models.reply_cache import CachedModel, ReplyCache, identify, open_cache
from core.settings import Settings, load_settings

ASKED: list[Conversation] = [[{"role": "user", "content": text}] for text in ("What is gold?", "And iron?")]


class CountingModel:
    """A model that counts how often it really writes."""

    def __init__(self, model: LoadedModel) -> None:
        self.model, self.calls = model, 0

    def reply(self, conversations: Sequence[Conversation], **options: Any) -> list[str]:
        self.calls += 1
        return self.model.reply(conversations, **options)


@pytest.fixture
def counting(model: Any, tokenizer: Any) -> CountingModel:
    return CountingModel(LoadedModel(model, tokenizer))


def cached(counting: CountingModel, cache: ReplyCache, identity: str = "weights") -> CachedModel:
    return CachedModel(counting, counting.model.tokenizer, lambda: identity, cache)


def test_only_an_identical_call_is_found(counting: CountingModel, tmp_path: Path) -> None:
    model = cached(counting, ReplyCache(tmp_path / "replies", 10**6))
    greedy: dict[str, Any] = {"max_new_tokens": 4, "temperature": 0.0}
    first = model.reply(ASKED, seed=0, **greedy)
    assert model.reply(ASKED, seed=1, **greedy) == first, "greedy replies do not depend on the seed"
    assert counting.calls == 1
    model.reply(ASKED[:1], seed=0, **greedy)
    model.reply(ASKED, max_new_tokens=5, temperature=0.0, seed=0)
    sampled = model.reply(ASKED, max_new_tokens=4, temperature=1.0, seed=0)
    assert model.reply(ASKED, max_new_tokens=4, temperature=1.0, seed=0) == sampled
    model.reply(ASKED, max_new_tokens=4, temperature=1.0, seed=1)
    cached(counting, model.cache, "other weights").reply(ASKED, seed=0, **greedy)
    assert counting.calls == 6


def test_the_identity_follows_weights_and_number_format(model: Any) -> None:
    import torch

    before = identify(model, sha256_of_model(model))
    weight = model.get_input_embeddings().weight
    kept = weight[0, 0].item()
    with torch.no_grad():
        weight[0, 0] += 1
        changed = identify(model, sha256_of_model(model))
        weight[0, 0] = kept
    assert changed != before == identify(model, sha256_of_model(model))


def test_it_stays_within_its_limit_and_evicts_the_least_recently_used(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path, 1000)
    for number in range(8):
        cache.put(str(number), ["x" * 100])
        os.utime(tmp_path / f"{number}.json", (number, number))
    assert cache.get("0") is not None, "now the newest"
    for number in range(8, 12):
        cache.put(str(number), ["x" * 100])
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
    assert cache.get("0") is not None and cache.get("1") is None


def test_a_damaged_file_is_a_miss(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path, 1000)
    cache.put("a", ["x"])
    (tmp_path / "a.json").write_text('["x', encoding="utf-8")
    assert cache.get("a") is None


def test_many_writers_leave_whole_files_only(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path, 20_000)

    def work(number: int) -> None:
        cache.put(f"{number % 7}", [str(number)] * 200)
        cache.get(f"{number % 5}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(200)))
    found = [cache.get(f"{number}") for number in range(7)]
    assert all(len(set(replies)) == 1 and len(replies) == 200 for replies in found if replies is not None)
    assert any(found) and not list(tmp_path.glob("*.tmp"))


def test_it_can_be_disabled(settings: Settings) -> None:
    assert open_cache(replace(settings, reply_cache_bytes=0)) is None
    assert load_settings({"SAFEMERGE_REPLY_CACHE_MB": "0"}).reply_cache_bytes == 0
    assert load_settings({}).reply_cache_bytes == 256_000_000
