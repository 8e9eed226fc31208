"""Metadata without weights: from folders, a Hub and the demo's recorded facts; each refusal says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from core.errors import ModelError
from core.models.demo_base import HUB_ID, ensure_base
from core.models.metadata import read_metadata, record_facts
from core.models.references import ModelReference, parse_reference
from core.settings import Settings
from tests.hub_server import HubServer
from tests.tiny_models import CHATML, VOCABULARY, copy_model, save_tiny_llama

HUB_MODEL = ModelReference("hub", "owner/model")


def folder(path: Path) -> ModelReference:
    return ModelReference("folder", str(path))


def test_folder_facts(tiny_llama: Path, settings: Settings) -> None:
    facts = read_metadata(folder(tiny_llama), settings)
    assert facts.architecture == "LlamaForCausalLM"
    assert facts.tensors["model.embed_tokens.weight"] == ((VOCABULARY, 32), "BF16")
    assert facts.parameters == 29_856
    assert facts.dtype == "BF16"
    assert facts.size_bytes == (tiny_llama / "model.safetensors").stat().st_size
    assert facts.chat_template == CHATML
    assert facts.tokenizer.size == VOCABULARY
    assert facts.tokenizer.added == {0: "<|endoftext|>", 1: "<|im_start|>", 2: "<|im_end|>"}
    assert facts.cached


def test_hub_facts_are_the_folders_and_weights_stay_there(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    path = save_tiny_llama(tmp_path / "large", hidden_size=512, intermediate_size=1024)
    hub.publish("owner/model", path, license="llama3")
    remote, local = read_metadata(HUB_MODEL, settings), read_metadata(folder(path), settings)
    assert remote.tensors == local.tensors
    assert remote.tokenizer == local.tokenizer
    assert remote.config == local.config
    assert remote.chat_template == local.chat_template
    assert remote.size_bytes == local.size_bytes > 1_000_000
    assert (remote.license, remote.gated, remote.cached) == ("llama3", False, False)
    assert hub.weight_bytes_sent() <= 100_001
    assert not list(settings.home.rglob("*.safetensors"))


def test_sharded_models_are_read_through_their_index(
    hub: HubServer, settings: Settings, tiny_llama: Path, tmp_path: Path
) -> None:
    path = save_tiny_llama(tmp_path / "sharded", max_shard_size="20KB")
    hub.publish("owner/model", path)
    whole = read_metadata(folder(tiny_llama), settings).tensors
    assert read_metadata(folder(path), settings).tensors == whole
    assert read_metadata(HUB_MODEL, settings).tensors == whole


def test_tied_output_layer_saved_twice_counts_once(tmp_path: Path, settings: Settings) -> None:
    tied = read_metadata(folder(save_tiny_llama(tmp_path / "tied")), settings)
    untied = read_metadata(folder(save_tiny_llama(tmp_path / "untied", tie_word_embeddings=False)), settings)
    assert untied.parameters == tied.parameters + VOCABULARY * 32
    weights = load_file(tmp_path / "tied" / "model.safetensors")
    twice = copy_model(tmp_path / "tied", tmp_path / "twice")
    copied = weights["model.embed_tokens.weight"].clone()
    save_file({**weights, "lm_head.weight": copied}, twice / "model.safetensors", metadata={"format": "pt"})
    again = read_metadata(folder(twice), settings)
    assert again.parameters == tied.parameters and again.same_head and not again.has_own_head
    save_file({**weights, "lm_head.weight": copied + 1}, twice / "model.safetensors", metadata={"format": "pt"})
    differing = read_metadata(folder(twice), settings)
    assert differing.parameters == untied.parameters and differing.has_own_head


def test_chat_template_in_the_tokenizer_config(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    path = copy_model(tiny_llama, tmp_path / "older")
    (path / "chat_template.jinja").unlink()
    config = json.loads((path / "tokenizer_config.json").read_text())
    for template in ("plain", [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "plain"}]):
        (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        assert read_metadata(folder(path), settings).chat_template == "plain"


def test_adapter_facts(tiny_llama: Path, tiny_lora: Path, settings: Settings) -> None:
    facts = read_metadata(parse_reference(f"{tiny_llama}+{tiny_lora}", settings), settings)
    assert facts.adapter is not None
    assert facts.adapter.config["r"] == 4
    assert len(facts.adapter.tensors) == 8
    assert facts.size_bytes == (tiny_llama / "model.safetensors").stat().st_size + facts.adapter.size_bytes


def test_cached_model_is_read_when_the_hub_is_gone(hub: HubServer, settings: Settings, tiny_llama: Path) -> None:
    from core.models import hub as hub_access

    hub.publish("owner/model", tiny_llama)
    online = read_metadata(HUB_MODEL, settings)
    hub.broken = 503
    with pytest.raises(ModelError) as caught:
        read_metadata(HUB_MODEL, settings)
    assert caught.value.code == "hub-error-status" and "503" in caught.value.message
    hub.broken = None
    hub_access.fetch(HUB_MODEL, settings, weights=True)
    hub.broken = 503
    assert read_metadata(HUB_MODEL, settings).tensors == online.tensors


def test_unreachable_hub_says_so(settings: Settings) -> None:
    with pytest.raises(ModelError) as caught:
        read_metadata(HUB_MODEL, settings)
    assert caught.value.code == "hub-unreachable" and caught.value.hint


def test_missing_repository_suggests_near_names(hub: HubServer, settings: Settings, tiny_llama: Path) -> None:
    hub.publish("elsewhere/model-7b", tiny_llama)
    with pytest.raises(ModelError) as caught:
        read_metadata(HUB_MODEL, settings)
    assert caught.value.code == "repository-not-found"
    assert "elsewhere/model-7b" in caught.value.hint


def test_missing_revision(hub: HubServer, settings: Settings, tiny_llama: Path) -> None:
    hub.publish("owner/model", tiny_llama)
    with pytest.raises(ModelError) as caught:
        read_metadata(replace(HUB_MODEL, revision="v9"), settings)
    assert caught.value.code == "revision-not-found" and "v9" in caught.value.message


def test_gated_model_needs_a_token(hub: HubServer, settings: Settings, tiny_llama: Path) -> None:
    hub.publish("owner/model", tiny_llama, gated=True)
    with pytest.raises(ModelError) as caught:
        read_metadata(HUB_MODEL, settings)
    assert caught.value.code == "gated" and "HF_TOKEN" in caught.value.hint
    assert read_metadata(HUB_MODEL, replace(settings, token=hub.token)).gated


def test_private_model_opens_with_the_token(hub: HubServer, settings: Settings, tiny_llama: Path) -> None:
    hub.publish("owner/model", tiny_llama, private=True)
    with pytest.raises(ModelError) as caught:
        read_metadata(HUB_MODEL, settings)
    assert caught.value.code == "repository-not-found"
    assert read_metadata(HUB_MODEL, replace(settings, token=hub.token)).parameters == 29_856


def _no_config(path: Path) -> None:
    (path / "config.json").unlink()


def _gguf_only(path: Path) -> None:
    _no_config(path)
    (path / "model.safetensors").rename(path / "model.gguf")


def _cut(path: Path) -> None:
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])


def _garbage(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 no header here ")


def _broken_config(path: Path) -> None:
    (path / "config.json").write_text("{")


def _lost_shard(path: Path) -> None:
    (path / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_no_config, "no-config"),
        (_gguf_only, "gguf-only"),
        (_cut, "weights-truncated"),
        (_garbage, "damaged-safetensors"),
        (_broken_config, "malformed-json"),
        (_lost_shard, "shard-missing"),
    ],
)
def test_unusable_models(
    spoil: Callable[[Path], None],
    code: str,
    remote: bool,
    hub: HubServer,
    tiny_llama: Path,
    tmp_path: Path,
    settings: Settings,
) -> None:
    path = copy_model(tiny_llama, tmp_path / "spoiled")
    spoil(path)
    hub.publish("owner/model", path)
    with pytest.raises(ModelError) as caught:
        read_metadata(HUB_MODEL if remote else folder(path), settings)
    assert caught.value.code == code and caught.value.hint


def test_lone_adapter_says_how_to_write_it(hub: HubServer, tiny_lora: Path, settings: Settings) -> None:
    hub.publish("owner/lora", tiny_lora)
    with pytest.raises(ModelError) as caught:
        read_metadata(ModelReference("hub", "owner/lora"), settings)
    assert caught.value.code == "adapter-without-base"
    assert "+owner/lora" in caught.value.hint


def test_model_in_the_adapters_place(tiny_llama: Path, settings: Settings) -> None:
    with pytest.raises(ModelError) as caught:
        read_metadata(parse_reference(f"{tiny_llama}+{tiny_llama}", settings), settings)
    assert caught.value.code == "not-a-lora-adapter"


def test_demo_facts_need_no_download(settings: Settings) -> None:
    facts = read_metadata(ModelReference("demo", "base"), settings)
    assert facts.parameters == 134_515_008
    assert facts.tokenizer.size == facts.config["vocab_size"] == 49_152
    assert "<|im_start|>" in (facts.chat_template or "")
    assert not facts.cached
    assert not settings.home.exists()


def test_prepared_demo_base_is_read_from_disk(hub: HubServer, tiny_llama: Path, settings: Settings) -> None:
    hub.publish(HUB_ID, tiny_llama)
    ensure_base(settings)
    facts = read_metadata(ModelReference("demo", "base"), settings)
    assert facts.cached
    assert facts.parameters == 29_856
    assert json.loads(record_facts(facts))["shapes"]["model.norm.weight"] == [32]
