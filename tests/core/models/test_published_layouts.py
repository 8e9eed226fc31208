"""Whole models in the layouts of published repositories: the right files are read, here and from a Hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import ModelError
from core.models.hub import HubUnreachable
from core.models.loading import load_model, load_state
from core.models.metadata import read_metadata
from core.models.references import ModelReference, parse_reference
from core.settings import Settings
from tests.architectures import save_tiny
from tests.hub_server import HubServer
from tests.raising import raises
from tests.tiny_models import copy_model, save_tiny_llama

HUB_MODEL = ModelReference("hub", "owner/model")
F32 = torch.float32


def folder(path: Path) -> ModelReference:
    return ModelReference("folder", str(path))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def pickled(path: Path) -> Path:
    """Replace a folder's safetensors by the pickles that transformers 4 wrote."""
    for file in path.glob("*.safetensors"):
        name = file.name.replace("adapter_model", "adapter_model").replace("model-", "pytorch_model-")
        name = "pytorch_model.bin" if file.name == "model.safetensors" else name.replace(".safetensors", ".bin")
        torch.save(load_file(file), path / name)
        file.unlink()
    index = path / "model.safetensors.index.json"
    if index.exists():
        text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (path / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()
    return path


@pytest.fixture
def crowded(tiny_expert: Path, tmp_path: Path) -> Path:
    """Shards with an index beside a stale single file, another format and a left-over adapter."""
    path = save_tiny_llama(tmp_path / "crowded", max_shard_size="20KB")
    shutil.copy(tiny_expert / "model.safetensors", path / "model.safetensors")
    save_file({"tok_embeddings.weight": torch.zeros(2, 2)}, path / "consolidated.safetensors")
    (path / "model.gguf").write_bytes(b"GGUF")
    (path / "original").mkdir()
    (path / "original" / "consolidated.00.pth").write_bytes(b"pickle")
    config = {"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing", "r": 4}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("remote", [False, True])
def test_the_index_decides_and_leftovers_are_ignored(
    remote: bool, crowded: Path, tiny_llama: Path, hub: HubServer, settings: Settings
) -> None:
    hub.publish("owner/model", crowded)
    ref = HUB_MODEL if remote else folder(crowded)
    facts = read_metadata(ref, settings)
    assert facts.tensors == read_metadata(folder(tiny_llama), settings).tensors
    assert facts.leftover_adapter
    assert same(load_state(ref, settings, F32), load_state(folder(tiny_llama), settings, F32))
    unwanted = ("owner/model/model.safetensors", "owner/model/consolidated.safetensors", "owner/model/model.gguf")
    assert not [name for name in unwanted if name in hub.sent]


@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_pickles_are_converted_wherever_they_are(
    max_shard_size: str, tiny_llama: Path, hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    path = pickled(save_tiny_llama(tmp_path / "pickled", max_shard_size=max_shard_size))
    hub.publish("owner/model", path)
    expected = read_metadata(folder(tiny_llama), settings)
    local, remote = read_metadata(folder(path), settings), read_metadata(HUB_MODEL, settings)
    assert local.tensors == remote.tensors == expected.tensors
    assert local.pickled_bytes == remote.pickled_bytes > 0 and not remote.cached
    assert not [name for name in hub.sent if name.endswith(".bin")]
    state = load_state(folder(tiny_llama), settings, F32)
    assert same(load_state(folder(path), settings, F32), state)
    assert same(load_state(HUB_MODEL, settings, F32), state)
    assert read_metadata(HUB_MODEL, settings).cached
    hub.broken = 503
    assert same(load_state(HUB_MODEL, settings, F32), state)


def test_a_pickled_adapter(tiny_llama: Path, tiny_lora: Path, tmp_path: Path, settings: Settings) -> None:
    lora = pickled(copy_model(tiny_lora, tmp_path / "lora"))
    assert not list(lora.glob("*.safetensors"))
    expected = load_state(parse_reference(f"{tiny_llama}+{tiny_lora}", settings), settings, F32)
    assert same(load_state(parse_reference(f"{tiny_llama}+{lora}", settings), settings, F32), expected)


@pytest.fixture
def converted(tiny_llama: Path, tmp_path: Path, hub: HubServer) -> HubServer:
    """A Hub with a pickled model, and a bot's pull request that adds safetensors to it."""
    hub.publish("owner/model", pickled(copy_model(tiny_llama, tmp_path / "main")))
    proposed = pickled(copy_model(tiny_llama, tmp_path / "proposed"))
    shutil.copy(tiny_llama / "model.safetensors", proposed)
    hub.propose("owner/model", 3, proposed)
    return hub


def test_the_hubs_conversion_is_used(converted: HubServer, tiny_llama: Path, settings: Settings) -> None:
    facts = read_metadata(HUB_MODEL, settings)
    assert facts.conversion == f"refs/pr/3 at {converted.proposals['owner/model', 3].repository.sha}"
    assert not facts.pickled_bytes and not facts.cached
    expected = load_state(folder(tiny_llama), settings, F32)
    assert same(load_state(HUB_MODEL, settings, F32), expected)
    assert not [name for name in converted.sent if name.endswith(".bin")]
    assert read_metadata(HUB_MODEL, settings).cached
    converted.broken = 503
    assert read_metadata(HUB_MODEL, settings).conversion == facts.conversion
    assert same(load_state(HUB_MODEL, settings, F32), expected)


@pytest.mark.parametrize("change", [{"author": "stranger"}, {"status": "closed"}])
def test_other_pull_requests_are_not_trusted(change: dict[str, str], converted: HubServer, settings: Settings) -> None:
    path = converted.proposals["owner/model", 3].repository.folder
    converted.propose("owner/model", 3, path, **change)
    assert not read_metadata(HUB_MODEL, settings).conversion


def test_a_conversion_of_other_pickles_is_not_used(converted: HubServer, settings: Settings) -> None:
    path = converted.proposals["owner/model", 3].repository.folder
    torch.save({"a": torch.ones(1)}, path / "pytorch_model.bin")
    facts = read_metadata(HUB_MODEL, settings)
    assert not facts.conversion and facts.pickled_bytes


def test_a_model_in_the_ordinary_cache_is_used(
    hub: HubServer, tiny_llama: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, snapshot_download

    hub.publish("owner/model", tiny_llama)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "ordinary"))
    snapshot_download("owner/model", cache_dir=tmp_path / "ordinary")
    hub.sent.clear()
    assert read_metadata(HUB_MODEL, settings).cached
    expected = load_state(folder(tiny_llama), settings, F32)
    assert same(load_state(HUB_MODEL, settings, F32), expected)
    assert "owner/model/model.safetensors" not in hub.sent or hub.sent["owner/model/model.safetensors"] <= 100_001
    assert not [path for path in settings.home.rglob("model.safetensors") if not path.is_symlink()]
    hub.broken = 503
    shutil.rmtree(settings.home)
    assert read_metadata(HUB_MODEL, settings).cached
    assert same(load_state(HUB_MODEL, settings, F32), expected)


def test_an_incomplete_ordinary_cache_is_not_used(
    hub: HubServer, tiny_llama: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, snapshot_download

    hub.publish("owner/model", tiny_llama)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "ordinary"))
    snapshot_download("owner/model", cache_dir=tmp_path / "ordinary", allow_patterns=["*.json"])
    assert not read_metadata(HUB_MODEL, settings).cached
    hub.broken = 503
    with pytest.raises(HubUnreachable):
        load_model(HUB_MODEL, settings, F32)


def test_a_gpt2_without_its_prefix_and_with_old_buffers(tmp_path: Path, settings: Settings) -> None:
    path = save_tiny("gpt2", tmp_path / "gpt2")
    old = copy_model(path, tmp_path / "old")
    state = load_file(old / "model.safetensors")
    state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    state |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 4, 4) for layer in range(2)}
    state |= {f"h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(2)}
    save_file(state, old / "model.safetensors", metadata={"format": "pt"})
    (old / "config.json").write_text(
        json.dumps({**json.loads((old / "config.json").read_text()), "architectures": None})
    )
    assert read_metadata(folder(old), settings).tensors == read_metadata(folder(path), settings).tensors
    assert same(load_state(folder(old), settings, F32), load_state(folder(path), settings, F32))


def test_a_view_follows_a_changed_folder(tmp_path: Path, settings: Settings) -> None:
    path = pickled(save_tiny_llama(tmp_path / "model"))
    first = load_state(folder(path), settings, F32)
    state = torch.load(path / "pytorch_model.bin", weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in state.items()}, path / "pytorch_model.bin")
    os.utime(path / "pytorch_model.bin", ns=(1, 1))
    second = load_state(folder(path), settings, F32)
    assert first.keys() == second.keys() and not same(first, second)


def test_weights_that_are_not_a_model_have_no_weights(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    path = copy_model(tiny_llama, tmp_path / "odd")
    (path / "model.safetensors").rename(path / "consolidated.safetensors")
    with raises(ModelError, "no-safetensors"):
        load_model(folder(path), settings, F32)
