"""Hashes of weights: alike for live and saved models, and different for any difference."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from core.models.fingerprint import sha256_of_folder, sha256_of_model, sha256_of_state

STATE = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}


def test_shards_do_not_change_the_hash(tiny_llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert sha256_of_folder(tmp_path / "shards") == sha256_of_folder(tiny_llama) == sha256_of_model(model)


def test_order_does_not_change_the_hash() -> None:
    assert sha256_of_state(dict(reversed(STATE.items()))) == sha256_of_state(STATE)


def test_any_change_changes_the_hash() -> None:
    changed = [
        {"a": torch.tensor([1.0, 2.0000002]), "b": STATE["b"]},
        {"a": STATE["a"].bfloat16(), "b": STATE["b"]},
        {"a": STATE["a"].reshape(1, 2), "b": STATE["b"]},
        {"A": STATE["a"], "b": STATE["b"]},
        {"a": STATE["a"]},
        {"a": torch.tensor([2.0, 1.0]), "b": STATE["b"]},
    ]
    assert len({sha256_of_state(state) for state in (STATE, *changed)}) == len(changed) + 1


def test_a_transposed_view_counts_as_what_it_shows() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    assert sha256_of_state({"a": matrix.T}) == sha256_of_state({"a": matrix.T.contiguous()})
