"""End tokens: every file that names one counts, and the chat template's end of turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AddedToken, AutoModelForCausalLM, GenerationConfig, LlamaConfig

from core.models.chat_format import encode_pair, encode_prompt
from core.models.end_tokens import end_of_turn, end_token_ids, padding_id
from core.models.generation import generate_all
from tests.tiny_models import CHATML, save_tiny_llama, tiny_tokenizer

LLAMA3 = (
    "{% for m in messages %}{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role'])"
    " + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
ALPACA = "{% for m in messages %}{{ '### ' + m['role'] + ':\n' + m['content'] + '\n\n' }}{% endfor %}"
REFUSING = "{{ raise_exception('no') }}"


def tokenizer_with(template: Any, *added: str, special: bool = True) -> Any:
    """A tokenizer with its own bos and eos, added tokens, and a chat template."""
    tokenizer = tiny_tokenizer(template)
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text in ("<s>", "</s>", *added)])
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<s>", "</s>", None
    return tokenizer


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize(
    ("template", "added", "end"),
    [
        (LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>"),
        (CHATML, (), "<|im_end|>"),
        (MISTRAL, (), "</s>"),
        (GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>"),
        (ALPACA, ("\n\n",), None),
        (REFUSING, (), None),
        (None, (), None),
        ([{"name": "tool_use", "template": CHATML}], (), None),
    ],
)
def test_the_template_shows_how_a_turn_ends(
    template: Any, added: tuple[str, ...], end: str | None, special: bool
) -> None:
    if template == ALPACA and special:
        pytest.skip("A line break is no special token.")
    if isinstance(template, list):
        template = {one["name"]: one["template"] for one in template}
    tokenizer = tokenizer_with(template, *added, special=special)
    assert end_of_turn(tokenizer) == (None if end is None else tokenizer.convert_tokens_to_ids(end))


def test_all_files_count() -> None:
    tokenizer = tokenizer_with(CHATML, "<a>", "<b>", "<c>")
    a, b, c, eos, turn = tokenizer.convert_tokens_to_ids(["<a>", "<b>", "<c>", "</s>", "<|im_end|>"])
    model = type("Model", (), {})()
    model.config = LlamaConfig(eos_token_id=c)
    model.generation_config = GenerationConfig(eos_token_id=[a, b])
    assert end_token_ids(model, tokenizer) == [a, b, c, eos, turn]
    assert end_token_ids(model.config, tokenizer) == [c, eos, turn]
    model.config.eos_token_id = [a, eos]
    assert end_token_ids(model, tokenizer) == [a, b, eos, turn]


def test_a_default_of_the_class_is_no_end_token() -> None:
    tokenizer = tokenizer_with(None)
    assert 2 in end_token_ids(LlamaConfig(), tokenizer)  # here the token 2 is a special one
    ordinary = tiny_tokenizer(None)
    text = ordinary("a", add_special_tokens=False)["input_ids"][0]
    config = LlamaConfig(eos_token_id=text)
    assert end_token_ids(config, ordinary) == [text, ordinary.eos_token_id]  # named by the file
    ordinary.eos_token = None
    plain = type("Plain", (), {"chat_template": None, "eos_token_id": None, "bos_token_id": None})()
    plain.all_special_ids, plain.added_tokens_decoder, plain.pad_token_id = [], {}, None
    assert end_token_ids(LlamaConfig(), plain) == []
    assert padding_id(plain) == 0


@pytest.mark.parametrize("named_by", ["generation_config", "config", "tokenizer", "template"])
def test_generation_stops_at_the_end_token(named_by: str, tmp_path: Path) -> None:
    """The model writes <|endoftext|> as the second token of its reply; one place names it as the end."""
    save_tiny_llama(tmp_path, tie_word_embeddings=False, initializer_range=0.4)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokenizer = tiny_tokenizer(CHATML.replace("<|im_end|>", ""))
    tokenizer.eos_token = tokenizer.pad_token = None
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    asked = [[{"role": "user", "content": "Hi"}]]
    _write_as_second_token(model, encode_prompt(tokenizer, asked[0]), _END)
    (free,) = generate_all(model, tokenizer, asked, max_new_tokens=6)
    if named_by == "generation_config":
        model.generation_config.eos_token_id = [350, _END]
    elif named_by == "config":
        model.config.eos_token_id = _END
    elif named_by == "tokenizer":
        tokenizer.eos_token = "<|endoftext|>"
    else:
        answered = "{% if message['role'] == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}"
        tokenizer.chat_template = tokenizer.chat_template.replace("{% endfor %}", answered)
    (stopped,) = generate_all(model, tokenizer, asked, max_new_tokens=6)
    assert len(stopped) < len(free)  # without an end token the reply goes on to the limit
    assert free.startswith(stopped)


_END = 0
"""Number of <|endoftext|>."""


def _write_as_second_token(model: Any, prompt: list[int], token: int) -> None:
    """Swap two rows of the output layer, so that the model's second token is `token`."""
    output = model.generate(torch.tensor([prompt]), max_new_tokens=2, do_sample=False, pad_token_id=0)
    second, head = int(output[0, -1]), model.get_output_embeddings().weight.data
    head[[second, token]] = head[[token, second]]


def test_a_training_pair_ends_where_generation_stops() -> None:
    tokenizer = tokenizer_with(GEMMA, "<start_of_turn>", "<end_of_turn>", special=False)
    pair = encode_pair(tokenizer, "Hi", "Yes")
    assert pair.input_ids[-1] == end_of_turn(tokenizer)
