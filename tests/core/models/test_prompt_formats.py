"""Prompt formats: what each writes, which one a model's name shows, and what a spec can name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.contracts.pool_spec import DomainSpec
from core.errors import ModelError
from core.models.chat_format import encode_pair, encode_prompt, render
from core.models.end_tokens import end_of_turn
from core.models.loading import load_tokenizer
from core.models.metadata import read_metadata
from core.models.prompt_formats import FORMATS, PLAIN, format_of_name, set_format, template_text
from core.models.references import ModelReference
from core.settings import Settings
from tests.tiny_models import CHATML, save_tiny_llama, tiny_tokenizer

ASKED = [{"role": "user", "content": "Hi"}]
SYSTEM = [{"role": "system", "content": "Be brief."}]
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nHi\n\n### Response:"
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: Hi ASSISTANT:"
)
PUBLISHED = {
    "alpaca": ALPACA,
    "vicuna": VICUNA,
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "llama2": "[INST] Hi [/INST]",
    "mistral": "[INST] Hi [/INST]",
    "zephyr": "<|user|>\nHi<|im_end|>\n<|assistant|>\n",
    "tulu": "<|user|>\nHi\n<|assistant|>\n",
    "gemma": "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
}
LLAMA3_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def hub(name: str) -> ModelReference:
    return ModelReference("hub", name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_format_writes_what_its_models_were_trained_with(name: str) -> None:
    tokenizer = tiny_tokenizer(None)
    set_format(tokenizer, hub("org/model"), name)
    assert render(tokenizer, ASKED, generation_prompt=True) == PUBLISHED[name]
    with_system = render(tokenizer, [*SYSTEM, *ASKED], generation_prompt=True)
    assert "Be brief." in with_system and "Hi" in with_system
    pair = encode_pair(tokenizer, "Hi", "Paris")
    assert pair.input_ids[: pair.answer_start] == encode_prompt(tokenizer, ASKED)
    assert "Paris" in tokenizer.decode(pair.input_ids[pair.answer_start :])


def test_every_format_is_written_and_described() -> None:
    assert {*PUBLISHED, PLAIN} == FORMATS.keys()
    described = str(DomainSpec.model_fields["template"].description)
    assert all(f"`{name}`" in described for name in FORMATS)


def test_a_pair_ends_with_the_end_of_sequence() -> None:
    tokenizer = tiny_tokenizer(None)
    set_format(tokenizer, hub("org/model"), "alpaca")
    assert encode_pair(tokenizer, "Hi", "Paris").input_ids[-1] == tokenizer.eos_token_id == end_of_turn(tokenizer)


def test_the_beginning_of_sequence_is_the_tokenizers_own() -> None:
    tokenizer = tiny_tokenizer(None)
    set_format(tokenizer, hub("org/model"), "alpaca")
    assert tokenizer.bos_token_id not in encode_prompt(tokenizer, ASKED)
    from tokenizers.processors import TemplateProcessing

    adding = tiny_tokenizer(None)
    start = str(adding.bos_token)
    adding._tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, adding.bos_token_id)]
    )
    set_format(adding, hub("org/model"), "alpaca")
    ids = encode_prompt(adding, ASKED)
    assert ids[0] == adding.bos_token_id and ids.count(adding.bos_token_id) == 1


@pytest.mark.parametrize(
    ("name", "tokens", "expected"),
    [
        ("WizardLMTeam/WizardMath-7B-V1.1", (), "alpaca"),
        ("TIGER-Lab/MAmmoTH-7B", (), "alpaca"),
        ("TIGER-Lab/MAmmoTH2-7B", (), PLAIN),
        ("meta-math/MetaMath-Mistral-7B", (), "alpaca"),
        ("lmsys/vicuna-7b-v1.5", (), "vicuna"),
        ("aaditya/Llama3-OpenBioLLM-8B", LLAMA3_TOKENS, "llama3"),
        ("aaditya/Llama3-OpenBioLLM-8B", (), PLAIN),
        ("cognitivecomputations/dolphin-2.9-llama3-8b", ("<|im_start|>", "<|im_end|>"), "chatml"),
        ("alpaca/other", (), PLAIN),
        ("org/plain-model", LLAMA3_TOKENS, PLAIN),
    ],
)
def test_the_format_is_chosen_by_the_models_name(name: str, tokens: tuple[str, ...], expected: str) -> None:
    assert format_of_name(hub(name), tokens) == expected


def test_an_adapter_is_asked_as_its_own_name_says() -> None:
    adapted = ModelReference("hub", "org/model", None, hub("org/alpaca-lora"))
    assert format_of_name(adapted, ()) == "alpaca"


def test_a_spec_can_name_a_file_or_a_template(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(CHATML, encoding="utf-8")
    assert template_text(str(file)) == template_text(CHATML) == CHATML
    assert template_text(PLAIN) is None


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("alpacca", "unknown-template"),
        ("missing.jinja", "unknown-template"),
        ("{% for %}", "malformed-template"),
    ],
)
def test_unusable_templates_are_refused(written: str, code: str) -> None:
    with pytest.raises(ModelError) as caught:
        template_text(written)
    assert caught.value.code == code


def test_a_loaded_tokenizer_has_the_format(tmp_path: Path, settings: Settings) -> None:
    folder = save_tiny_llama(tmp_path / "WizardMath-tiny", chat_template=None)
    reference = ModelReference("folder", f"{folder}/")
    assert render(load_tokenizer(reference, settings), ASKED, generation_prompt=True) == ALPACA
    assert load_tokenizer(reference, settings, PLAIN).chat_template is None
    named = save_tiny_llama(tmp_path / "alpaca-with-template")
    assert load_tokenizer(ModelReference("folder", str(named)), settings).chat_template == CHATML


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ([{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "x"}], True),
        ([{"name": "chat", "template": CHATML}], True),
        ([{"name": "rag", "template": "x"}, {"name": "tool_use", "template": "x"}], False),
        ("", False),
        (3, False),
    ],
)
def test_named_and_empty_templates(written: Any, used: bool, tmp_path: Path, settings: Settings) -> None:
    path = save_tiny_llama(tmp_path / "model", chat_template=None)
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": written}))
    ref = ModelReference("folder", str(path))
    text = (
        render(load_tokenizer(ref, settings), [{"role": "user", "content": "Hi"}], generation_prompt=True)
        if used
        else ""
    )
    assert ("<|im_start|>user\nHi" in text) == used
    assert bool(load_tokenizer(ref, settings).chat_template) == used
    assert read_metadata(ref, settings).chat_template == (CHATML if used else None)


def test_the_template_of_a_processor_is_used(tmp_path: Path, settings: Settings) -> None:
    path = save_tiny_llama(tmp_path / "model", chat_template=None)
    (path / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}))
    ref = ModelReference("folder", str(path))
    assert load_tokenizer(ref, settings).chat_template == read_metadata(ref, settings).chat_template == CHATML
