"""Hashes of weights: alike for live and saved models, and different for any difference."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from core.models import fingerprint
from core.models.fingerprint import (
    WeightHash,
    folder_holds,
    hash_state,
    sha256_of_folder,
    sha256_of_model,
    sha256_of_state,
    start_hash,
)
from core.models.loading import saved_state

STATE = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}


def test_shards_do_not_change_the_hash(tiny_llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert sha256_of_folder(tmp_path / "shards") == sha256_of_folder(tiny_llama) == sha256_of_model(model)


def test_order_does_not_change_the_hash() -> None:
    assert sha256_of_state(dict(reversed(STATE.items()))) == sha256_of_state(STATE)


def test_hashes_of_earlier_versions_stay_valid() -> None:
    assert sha256_of_state(STATE) == "a57cd2daf57c0718a4c3258ca42f1bd9e5f40046cc1b72075b821713ae6c99ab"


def test_a_folder_is_read_tensor_by_tensor(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    most = []

    class Counted:
        def __init__(self, path: Path, framework: str) -> None:
            self.file = safe_open(path, framework=framework)

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def keys(self) -> list[str]:
            return list(self.file.keys())

        def get_tensor(self, name: str) -> torch.Tensor:
            tensor = self.file.get_tensor(name)
            alive.append(weakref.ref(tensor))
            most.append(sum(seen() is not None for seen in alive))
            return tensor

    expected = sha256_of_folder(tiny_llama)
    monkeypatch.setattr(fingerprint, "safe_open", Counted)
    assert sha256_of_folder(tiny_llama) == expected
    assert len(most) > 10 and max(most) <= 2


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


def test_the_hashes_of_parts_come_with_the_same_whole_hash() -> None:
    found = hash_state(STATE)
    assert found.sha256 == sha256_of_state(STATE)
    assert found.parts.keys() == STATE.keys() and len(set(found.parts.values())) == 2


def test_a_folder_is_compared_by_its_parts(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hash over all tensors: one core would compute it."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    weights = hash_state(saved_state(model))
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint, "sha256_of_folder", None)
        assert folder_holds(tmp_path / "shards", weights)
        for change in (
            lambda: model.model.norm.weight.data.add_(1),
            lambda: setattr(model.model, "norm", torch.nn.Identity()),
            lambda: model.register_buffer("more", torch.ones(1)),
        ):
            change()
            model.save_pretrained(tmp_path / "changed", max_shard_size="20KB")
            assert not folder_holds(tmp_path / "changed", weights)
    assert folder_holds(tmp_path / "shards", WeightHash(weights.sha256, {}))
    assert not folder_holds(tmp_path / "changed", WeightHash(weights.sha256, {}))


def test_a_processor_hashes_at_once(tiny_llama: Path) -> None:
    """The hash is that of the start, even if the weights change before it is asked for."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    before, waiting = sha256_of_model(model), start_hash(model, parts=True)
    model.model.norm.weight.data.add_(1)
    assert waiting() == WeightHash(before, {})
