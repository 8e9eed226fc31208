"""Tensors that are read straight from the files are those of the loaded model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import ModelError
from core.models import shards
from core.models.loading import load_state, open_state
from core.models.references import ModelReference, parse_reference
from core.models.shards import ShardState, open_shards
from core.settings import Settings
from tests.architectures import save_tiny
from tests.core.models.test_saved_families import FAMILIES
from tests.raising import raises
from tests.tiny_models import save_tiny_llama

DIRECT = {"gpt2", "phi3", "gemma2", "gemma3_text", "olmo2", "granite", "gpt_neox"}
"""Families whose tensors are saved as the class has them, at most under other names."""


def same_as_loaded(path: Path, settings: Settings) -> None:
    ref = ModelReference("folder", str(path))
    expected = load_state(ref, settings, torch.float32)
    with open_state(ref, settings, torch.float32) as state:
        assert state.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(state[name].float(), tensor), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_tensors_of_the_loaded_model(family: str, tmp_path: Path, settings: Settings) -> None:
    same_as_loaded(save_tiny(family, tmp_path / "model", **FAMILIES[family]), settings)


@pytest.mark.parametrize("family", sorted(DIRECT))
def test_plain_families_are_read_from_the_files(family: str, tmp_path: Path) -> None:
    with open_shards(save_tiny(family, tmp_path / "model", **FAMILIES[family])) or pytest.fail("not direct") as state:
        assert len(state) > 4


@pytest.mark.parametrize("tied", [True, False])
def test_shards_and_tied_layers(tied: bool, tmp_path: Path, settings: Settings) -> None:
    from transformers import AutoModelForCausalLM

    whole = save_tiny_llama(tmp_path / "whole", tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(whole)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    for path in (whole, tmp_path / "shards"):
        assert isinstance(open_shards(path), ShardState)
        same_as_loaded(path, settings)


def change(path: Path, how: Any) -> Path:
    tensors = load_file(path / "model.safetensors")
    how(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.mark.parametrize(
    "how",
    [
        lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}),
        lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"].double()}),
    ],
)
def test_what_transformers_leaves_out_or_casts_is_left_to_it(how: Any, tmp_path: Path, settings: Settings) -> None:
    path = change(save_tiny_llama(tmp_path / "model"), how)
    assert open_shards(path) is None
    same_as_loaded(path, settings)


def test_an_incomplete_or_damaged_checkpoint_has_its_error(tmp_path: Path, settings: Settings) -> None:
    path = change(save_tiny_llama(tmp_path / "model"), lambda tensors: tensors.pop("model.norm.weight"))
    with raises(ModelError, "weights-incomplete"):
        open_state(parse_reference(str(path), settings), settings, torch.float32)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError):
        open_state(parse_reference(str(path), settings), settings, torch.float32)


def test_tensors_are_copies_and_few_are_read_ahead(tiny_llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(tiny_llama, path)
    before = {name: tensor.clone() for name, tensor in load_file(path / "model.safetensors").items()}
    with open_shards(path) or pytest.fail("not direct") as state:
        names = list(state)
        first = state[names[0]]
        assert len(state._waiting) <= state._window < len(names)
        assert torch.equal(state[names[-1]], before[names[-1]])  # out of order
        assert torch.equal(state[names[0]], first)  # and again
        rest = {name: state[name] for name in names}
        assert not state._waiting and state.get("no such tensor") is None
    (path / "model.safetensors").write_bytes(b"")
    assert all(torch.equal(rest[name], before[name]) for name in names)


def test_a_tensor_is_read_to_the_wanted_device(tiny_llama: Path) -> None:
    """`meta` stands for a GPU: safetensors makes the tensors on the device that it is given."""
    opened: list[str] = []

    class File:
        def __init__(self, path: Path, framework: str, device: str) -> None:
            opened.append(device)

        def __enter__(self) -> File:
            return self

        def __exit__(self, *_: object) -> None: ...

        def get_tensor(self, name: str) -> torch.Tensor:
            return torch.ones(2, device="meta")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("safetensors.safe_open", File)
        with ShardState({"a": (tiny_llama / "model.safetensors", "a")}, "cuda:0") as state:
            assert state["a"].device.type == "meta"
    assert opened == ["cuda:0"] and shards._MOST_THREADS >= 1
