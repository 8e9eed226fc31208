"""What is written into a live model is hashed once, however often it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from core.jobs import pool_hashes
from core.jobs.pool_hashes import PoolHashes
from core.merging.engine import MergePool
from core.merging.recipes import equal_weights
from core.models.fingerprint import sha256_of_model, start_hash
from core.models.loading import untied_state


@pytest.fixture
def merge(tiny_llama: Path, tiny_expert: Path) -> MergePool:
    base, expert, live = (AutoModelForCausalLM.from_pretrained(path) for path in (tiny_llama, tiny_expert, tiny_llama))
    pool = MergePool(live, "base", untied_state(base))
    pool.add_expert("expert", untied_state(expert))
    return pool


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    models: list[Any] = []

    def counted(model: Any, *, parts: bool = False) -> Any:
        models.append(model)
        return start_hash(model, parts=parts)

    monkeypatch.setattr(pool_hashes, "start_hash", counted)
    return models


def test_the_same_weights_are_hashed_once(merge: MergePool, started: list[Any]) -> None:
    hashes, live = PoolHashes(merge), merge.live
    expert = merge.experts[0]
    recipes = [
        equal_weights("ties", merge.base_name, (expert,)),
        equal_weights("linear", merge.base_name, (expert,)),
    ]
    found = []
    for _ in range(2):
        for name in (merge.base_name, expert):
            merge.write_parent(name)
            found.append((hashes.sha256(live), sha256_of_model(live)))
        for recipe in recipes:
            merge.apply(recipe)
            found.append((hashes.sha256(live), sha256_of_model(live)))
    assert all(known == fresh for known, fresh in found)
    assert len(started) == 4 and len({known for known, _ in found}) >= 3


def test_unknown_weights_are_hashed_each_time(merge: MergePool, started: list[Any]) -> None:
    hashes = PoolHashes(merge)
    assert merge.written is None
    for _ in range(2):
        hashes.sha256(merge.live)
    assert len(started) == 2
