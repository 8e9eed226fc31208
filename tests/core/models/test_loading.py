"""Loading: real tiny models from folders and from a Hub; LoRA merging; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.errors import ModelError
from core.models import loading
from core.models.demo_base import HUB_ID
from core.models.loading import load_model, load_state, load_tokenizer
from core.models.own_settings import read_own_settings, under_settings
from core.models.references import ModelReference, parse_reference
from core.settings import Settings
from tests.hub_server import HubServer
from tests.tiny_models import copy_model, save_tiny_llama, save_tiny_lora

BF16 = torch.bfloat16
CHANGED = "model.layers.0.self_attn.v_proj.weight"


def folder(path: Path) -> ModelReference:
    return ModelReference("folder", str(path))


def test_folder_loads_in_the_dtype_asked_for(tiny_llama: Path, settings: Settings) -> None:
    model = load_model(folder(tiny_llama), settings, torch.float32)
    saved = load_file(tiny_llama / "model.safetensors")
    assert model.dtype == torch.float32
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model.model.norm.weight, saved["model.norm.weight"].float())


def test_state_has_each_tied_tensor_once(tiny_llama: Path, settings: Settings) -> None:
    state = load_state(folder(tiny_llama), settings, BF16)
    saved = load_file(tiny_llama / "model.safetensors")
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[name], saved[name]) for name in saved)


def test_untied_output_layer_is_kept(tmp_path: Path, settings: Settings) -> None:
    path = save_tiny_llama(tmp_path / "untied", tie_word_embeddings=False)
    assert "lm_head.weight" in load_state(folder(path), settings, BF16)


def test_sharded_model_loads_whole(tmp_path: Path, tiny_llama: Path, settings: Settings) -> None:
    path = save_tiny_llama(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(path.glob("*.safetensors"))) > 1
    whole, sharded = load_state(folder(tiny_llama), settings, BF16), load_state(folder(path), settings, BF16)
    assert all(torch.equal(whole[name], sharded[name]) for name in whole)


def test_lora_is_merged_in_float32(tiny_llama: Path, tiny_lora: Path, settings: Settings) -> None:
    """W + (alpha / r) B A is summed in float32 and rounded once."""
    reference = parse_reference(f"{tiny_llama}+{tiny_lora}", settings)
    merged = load_state(reference, settings, torch.bfloat16)
    base, lora = load_file(tiny_llama / "model.safetensors"), load_file(tiny_lora / "adapter_model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    delta = lora[f"base_model.model.{name}.lora_B.weight"] @ lora[f"base_model.model.{name}.lora_A.weight"]
    expected = (base[f"{name}.weight"].float() + 2.0 * delta).to(torch.bfloat16)
    assert torch.equal(merged[f"{name}.weight"], expected)
    assert merged.keys() == base.keys()
    assert torch.equal(merged["model.norm.weight"], base["model.norm.weight"])


def test_lora_of_another_size_is_refused(tmp_path: Path, tiny_lora: Path, settings: Settings) -> None:
    wide = save_tiny_llama(tmp_path / "wide", hidden_size=64)
    with pytest.raises(ModelError) as caught:
        load_model(parse_reference(f"{wide}+{tiny_lora}", settings), settings, BF16)
    assert caught.value.code == "adapter-mismatch"


def test_pickled_weights_are_loaded_from_their_conversion(
    tiny_llama: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_model(tiny_llama, tmp_path / "pickled")
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened in this process"))
    state = load_state(folder(path), settings, BF16)
    expected = load_state(folder(tiny_llama), settings, BF16)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_incomplete_weights_are_refused(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    path = copy_model(tiny_llama, tmp_path / "incomplete")
    state = load_file(path / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load_model(folder(path), settings, BF16)
    assert caught.value.code == "weights-incomplete"
    assert "model.layers.1.mlp.up_proj.weight" in caught.value.message


def test_a_damaged_file_is_refused(tiny_llama: Path, tiny_lora: Path, tmp_path: Path, settings: Settings) -> None:
    path, lora = copy_model(tiny_llama, tmp_path / "cut"), copy_model(tiny_lora, tmp_path / "lora")
    for file in (path / "model.safetensors", lora / "adapter_model.safetensors"):
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ModelError) as caught:
        load_model(folder(path), settings, BF16)
    assert caught.value.code == "damaged-safetensors"
    assert "cut" in caught.value.message
    with pytest.raises(ModelError) as caught:
        load_model(parse_reference(f"{tiny_llama}+{lora}", settings), settings, BF16)
    assert caught.value.code == "damaged-safetensors"


def test_an_adapter_that_lacks_tensors_is_not_merged(
    tiny_llama: Path, tiny_lora: Path, tmp_path: Path, settings: Settings
) -> None:
    lora = copy_model(tiny_lora, tmp_path / "lora")
    state = load_file(lora / "adapter_model.safetensors")
    for side in ("A", "B"):
        del state[f"base_model.model.model.layers.1.self_attn.q_proj.lora_{side}.weight"]
    save_file(state, lora / "adapter_model.safetensors")
    with pytest.raises(ModelError) as caught:
        load_model(parse_reference(f"{tiny_llama}+{lora}", settings), settings, BF16)
    assert caught.value.code == "adapter-incomplete" and " 2 " in caught.value.message


def test_models_with_their_own_code_are_refused(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    path = copy_model(tiny_llama, tmp_path / "custom")
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "custom", "auto_map": {"AutoModelForCausalLM": "modeling.Custom"}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "modeling.py").write_text("raise SystemExit('ran foreign code')\n")
    with pytest.raises(ModelError) as caught:
        load_model(folder(path), settings, BF16)
    assert caught.value.code == "model-not-loadable"


def test_quantized_models_are_refused(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    path = copy_model(tiny_llama, tmp_path / "quantized")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(ModelError) as caught:
        load_model(folder(path), settings, BF16)
    assert caught.value.code == "quantized"


def test_model_from_the_hub_without_its_pickles(
    hub: HubServer, tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    path = copy_model(tiny_llama, tmp_path / "published")
    (path / "pytorch_model.bin").write_bytes(b"not opened")
    (path / "consolidated.safetensors").write_bytes(b"a second copy")
    hub.publish("owner/model", path)
    model = load_model(ModelReference("hub", "owner/model"), settings, torch.bfloat16)
    direct = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)
    assert torch.equal(model.lm_head.weight, direct.lm_head.weight)
    assert not {"owner/model/pytorch_model.bin", "owner/model/consolidated.safetensors"} & hub.sent.keys()


def test_downloaded_model_loads_when_the_hub_is_gone(hub: HubServer, tiny_llama: Path, settings: Settings) -> None:
    hub.publish("owner/model", tiny_llama)
    reference = ModelReference("hub", "owner/model")
    first = load_state(reference, settings, BF16)
    hub.broken = 503
    again = load_state(reference, settings, BF16)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_tokenizer_from_the_hub_downloads_no_weights(hub: HubServer, tiny_llama: Path, settings: Settings) -> None:
    hub.publish("owner/model", tiny_llama)
    tokenizer = load_tokenizer(ModelReference("hub", "owner/model"), settings)
    assert tokenizer.chat_template is not None
    assert tokenizer.eos_token == "<|im_end|>"
    assert hub.weight_bytes_sent() == 0


def test_adapter_uses_its_bases_tokenizer(tiny_llama: Path, tiny_lora: Path, settings: Settings) -> None:
    tokenizer = load_tokenizer(parse_reference(f"{tiny_llama}+{tiny_lora}", settings), settings)
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_missing_tokenizer_is_an_error(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    path = copy_model(tiny_llama, tmp_path / "mute")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink()
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder(path), settings)
    assert caught.value.code == "tokenizer-unreadable"


def test_lora_from_the_hub(hub: HubServer, tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    lora = save_tiny_lora(tmp_path / "lora", tiny_llama, seed=7)
    hub.publish("owner/base", tiny_llama)
    hub.publish("owner/lora", lora)
    remote = load_state(parse_reference("owner/base+owner/lora", settings), settings, BF16)
    local = load_state(parse_reference(f"{tiny_llama}+{lora}", settings), settings, BF16)
    assert all(torch.equal(remote[name], local[name]) for name in local)


def test_demo_model_is_its_adapter_on_the_prepared_base(
    hub: HubServer, tiny_llama: Path, tiny_lora: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish(HUB_ID, tiny_llama)
    monkeypatch.setattr(loading, "DEMO_ADAPTERS", tiny_lora.parent)
    demo = load_state(ModelReference("demo", tiny_lora.name), settings, BF16)
    local = load_state(parse_reference(f"{tiny_llama}+{tiny_lora}", settings), settings, BF16)
    assert all(torch.equal(demo[name], local[name]) for name in local)
    plain = load_state(ModelReference("demo", "base"), settings, BF16)
    assert not torch.equal(demo[CHANGED], plain[CHANGED])


def test_rotary_frequencies_keep_their_precision(tiny_llama: Path, tiny_lora: Path, settings: Settings) -> None:
    plain = load_model(parse_reference(str(tiny_llama), settings), settings, torch.bfloat16)
    adapted = load_model(parse_reference(f"{tiny_llama}+{tiny_lora}", settings), settings, torch.bfloat16)
    assert adapted.dtype == torch.bfloat16
    assert torch.equal(adapted.model.rotary_emb.inv_freq, plain.model.rotary_emb.inv_freq)
    assert adapted.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "flash_attention_2"},
        {"return_dict": False, "output_attentions": True, "output_hidden_states": True},
    ],
)
def test_settings_of_the_authors_program_do_not_count(
    changes: dict[str, Any], tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    path = copy_model(tiny_llama, tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))
    model = load_model(ModelReference("folder", str(path)), settings, torch.float32)
    expected = load_model(ModelReference("folder", str(tiny_llama)), settings, torch.float32)
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(model(ids).logits, expected(ids).logits)
    own = read_own_settings(ModelReference("folder", str(path)), settings)
    assert torch.equal(under_settings(expected, own.config, own.generation)(ids).logits, expected(ids).logits)
    model.save_pretrained(tmp_path / "saved")
