"""Small real guard models: two layers of each family's architecture, whose answer is fixed by their weights.

Attention and feed-forward layers add nothing, embeddings are unit vectors, and the output layer maps every token to
the first token of the answer and each token of the answer to the next. So the model writes the answer after any prompt,
through the real tokenizer, chat template, batching and generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    GraniteConfig,
    Llama4Config,
    Llama4ForConditionalGeneration,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen3Config,
)

from tests.tiny_models import tiny_tokenizer

_STRONG = 12.0

LLAMA_GUARD_TEMPLATE = (
    "{% if messages|length % 2 == 0 %}{% set role = 'Agent' %}{% else %}{% set role = 'User' %}{% endif %}"
    "Task: Check if there is unsafe content in '{{ role }}' messages.\n<BEGIN UNSAFE CONTENT CATEGORIES>\n"
    "S1: Violent Crimes.\nS2: Non-Violent Crimes.\nS10: Self-Harm.\n<END UNSAFE CONTENT CATEGORIES>\n"
    "<BEGIN CONVERSATION>\n{% for message in messages %}"
    "{{ 'User' if message['role'] == 'user' else 'Agent' }}: {{ message['content'] }}\n{% endfor %}"
    "<END CONVERSATION>\nProvide your safety assessment for {{ role }}.\n"
)
PARTS_TEMPLATE = LLAMA_GUARD_TEMPLATE.replace(
    "{{ message['content'] }}", "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}"
)
QWEN3GUARD_TEMPLATE = (
    "<|im_start|>user\n{% for message in messages %}{{ message['role']|upper }}: {{ message['content'] }}\n{% endfor %}"
    "Format:\nSafety: [Safe, Unsafe, Controversial]\nCategories: [...]\nRefusal: [Yes, No]<|im_end|>\n"
    "<|im_start|>assistant\n"
)
GRANITE_TEMPLATE = (
    "{% if guardian_config.risk_name != 'harm' %}{{ raise_exception('unknown risk') }}{% endif %}"
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "Is there the risk {{ guardian_config.risk_name }} in the last message?\n{% if add_generation_prompt %}assistant\n"
    "{% endif %}"
)
SHIELDGEMMA_TEMPLATE = (
    "You are a policy expert.\nHuman Question: {{ messages[0]['content'] }}\n"
    "Chatbot Response: {{ messages[1]['content'] }}\nOur safety principle is:\n* {{ guideline }}\n"
    "Does the response violate it? Your answer must start with 'Yes' or 'No'.\n"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<start>{{ message['role'] }}\n{{ message['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)
NEMOTRON_3_TEMPLATE = (
    "{{ request_categories }}\n"
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}model\n{% endif %}"
)
HARMONY_TEMPLATE = (
    "<|start|>system<|message|>Reasoning: {{ reasoning_effort }}\n<|end|>"
    "<|start|>developer<|message|># Instructions\n\n"
    "{{ messages[0]['content'] }}<|end|><|start|>user<|message|>{{ messages[1]['content'] }}<|end|>"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
CONFIGS: dict[str, tuple[type[PretrainedConfig], str | None]] = {
    "llama-guard": (LlamaConfig, LLAMA_GUARD_TEMPLATE),
    "qwen3guard": (Qwen3Config, QWEN3GUARD_TEMPLATE),
    "wildguard": (MistralConfig, None),
    "granite-guardian": (GraniteConfig, GRANITE_TEMPLATE),
    "granite-guardian-4": (GraniteConfig, CHAT_TEMPLATE),
    "nemotron-content-safety": (Gemma3TextConfig, CHAT_TEMPLATE),
    "nemotron-3-content-safety": (Gemma3TextConfig, NEMOTRON_3_TEMPLATE),
    "gpt-oss-safeguard": (GptOssConfig, HARMONY_TEMPLATE),
    "shieldgemma": (Gemma2Config, SHIELDGEMMA_TEMPLATE),
}
"""Architecture and chat template (shortened, with the published variables) of each family."""


def save_guard(
    folder: Path,
    family: str,
    answer: Sequence[str],
    *,
    rival: tuple[str, float] | None = None,
    template: str | None = None,
    ends: bool = True,
    positions: int = 2048,
) -> Path:
    """Save a tiny guard of `family` under `folder` that writes the pieces of `answer`, one token each.

    Args:
        rival: another first word, with the logit that it is given (the answer's first has 12).
        template: in place of the family's own.
        ends: False makes the answer repeat its last piece for ever.
        positions: most tokens that the model reads.
    """
    config_class, own = CONFIGS[family]
    tokenizer = tiny_tokenizer(template or own)
    words = dict.fromkeys([*answer, "safe", "unsafe", "Yes", "No"])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    size = -(-len(tokenizer) // 8) * 8
    config = config_class(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _fix_answer(model, [tokenizer.convert_tokens_to_ids(piece) for piece in answer], tokenizer, rival, ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _fix_answer(model: Any, chain: list[int], tokenizer: Any, rival: tuple[str, float] | None, ends: bool) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                parameter.zero_()
        size = model.config.hidden_size
        model.get_input_embeddings().weight.copy_(torch.eye(size))
        head = torch.zeros(size, size)
        head[chain[0], :] = _STRONG
        if rival:
            head[tokenizer.convert_tokens_to_ids(rival[0]), :] = rival[1]
        following = [*chain[1:], tokenizer.eos_token_id if ends else chain[-1]]
        for token, after in zip(chain, following, strict=True):
            head[:, token] = 0
            head[after, token] = _STRONG
        scale = float(model(torch.tensor([[0]]), output_hidden_states=True).hidden_states[-1].abs().max())
        model.get_output_embeddings().weight.copy_(head * getattr(model.config, "logits_scaling", 1.0) / scale)


def as_multimodal(folder: Path, target: Path) -> Path:
    """The tiny Llama Guard in `folder` as a Llama 4 that also sees images, the architecture of Llama Guard 4."""
    text = AutoModelForCausalLM.from_pretrained(folder)
    size = text.config.hidden_size
    shared = {key: getattr(text.config, key) for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    small = {"hidden_size": size, "intermediate_size": 16, "intermediate_size_mlp": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "moe_layers": []}
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "vision_output_dim": 32,
        "projector_input_dim": 32,
        "projector_output_dim": 32,
        "image_size": 28,
    }
    both = Llama4ForConditionalGeneration(Llama4Config(text_config=small | heads | shared, vision_config=vision))
    with torch.no_grad():
        for name, parameter in both.language_model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
        both.get_input_embeddings().weight.copy_(text.get_input_embeddings().weight)
        both.language_model.lm_head.weight.copy_(text.lm_head.weight)
    both.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return target


def save_classifier(folder: Path, logits: dict[str, float], *, many: bool = False) -> Path:
    """Save a tiny DistilBERT classifier that gives every text these logits, by label."""
    tokenizer = tiny_tokenizer(None)
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=16,
        hidden_dim=16,
        n_layers=2,
        n_heads=2,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(logits)),
        label2id={label: number for number, label in enumerate(logits)},
        problem_type="multi_label_classification" if many else "single_label_classification",
    )
    model = DistilBertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(list(logits.values())))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
