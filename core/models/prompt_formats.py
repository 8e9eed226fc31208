"""Chat templates for models that have none: known prompt formats by name, and the format that a model's name shows.

Many fine-tuned models are published without a chat template and were trained with one of a few formats. A model that
is asked in another format than its own loses part of its skill (arXiv 2406.14563, limitations).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, NamedTuple

from core.errors import ModelError
from core.models.references import ModelReference
from core.settings import resolve_path

PLAIN = "plain"
"""Name of the format without a template: one message per line."""

_ALPACA_SYSTEM = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
_OPENING = "{{ OPENING }}"
"""Stands for the special tokens that the tokenizer puts before a text."""

_DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = SYSTEM %}{% set rest = messages %}{% endif %}"
)
_ALPACA = (
    _DEFAULT_SYSTEM.replace("SYSTEM", repr(_ALPACA_SYSTEM)) + _OPENING + "{{ system + '\\n\\n' }}"
    "{% for message in rest %}{% if message['role'] == 'user' %}"
    "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}{% else %}"
    "{{ '### Response:' + message['content'] + eos_token + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:' }}{% endif %}"
)
_VICUNA = (
    _DEFAULT_SYSTEM.replace("SYSTEM", '"' + _VICUNA_SYSTEM + '"') + _OPENING + "{{ system + ' ' }}"
    "{% for message in rest %}{% if message['role'] == 'user' %}"
    "{{ 'USER: ' + message['content'] + ' ' }}{% else %}"
    "{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
_CHATML = (
    _OPENING + "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' "
    "}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = BEFORE + messages[0]['content'] + AFTER %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
)
_INST = (
    "{% for message in rest %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}{% else %}"
    "{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
_LLAMA2 = _NO_SYSTEM.replace("BEFORE", "'<<SYS>>\\n'").replace("AFTER", "'\\n<</SYS>>\\n\\n'") + _OPENING + _INST
_MISTRAL = _NO_SYSTEM.replace("BEFORE", "''").replace("AFTER", "'\\n\\n'") + _OPENING + _INST
_ROLES = (
    _OPENING + "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + END + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_ZEPHYR = _ROLES.replace("END", "eos_token")
_TULU = _ROLES.replace("END", "(eos_token if message['role'] == 'assistant' else '')")
_GEMMA = (
    _NO_SYSTEM.replace("BEFORE", "''").replace("AFTER", "'\\n\\n'") + _OPENING + "{% for message in rest %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' + "
    "(system if loop.first else '') + message['content'] + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


class PromptFormat(NamedTuple):
    """A prompt format.

    Attributes:
        template: Jinja chat template; None for plain lines.
        names: pattern of the names of models that were trained with it; "" for none.
        markers: tokens that the vocabulary must have for the format to be chosen by a model's name.
    """

    template: str | None
    names: str = ""
    markers: tuple[str, ...] = ()


FORMATS: dict[str, PromptFormat] = {
    PLAIN: PromptFormat(None),
    "alpaca": PromptFormat(_ALPACA, r"alpaca|wizardmath|wizardcoder|metamath|mammoth(?!-?2)|platypus"),
    "vicuna": PromptFormat(_VICUNA, r"vicuna|wizardlm"),
    "llama3": PromptFormat(
        _LLAMA3, r"openbiollm|llama-?3.*instruct", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    ),
    "chatml": PromptFormat(_CHATML, r"hermes|dolphin|openorca|chatml", ("<|im_start|>", "<|im_end|>")),
    "llama2": PromptFormat(_LLAMA2, r"llama-?2.*chat|codellama.*instruct"),
    "mistral": PromptFormat(_MISTRAL, r"(mistral|mixtral).*instruct|biomistral"),
    "zephyr": PromptFormat(_ZEPHYR, r"zephyr"),
    "tulu": PromptFormat(_TULU, r"tulu"),
    "gemma": PromptFormat(_GEMMA, r"gemma.*-it\b", ("<start_of_turn>", "<end_of_turn>")),
}
"""The formats that a spec can name. The first whose pattern is in a model's name is the model's."""


def format_of_name(ref: ModelReference, tokens: Collection[str]) -> str:
    """Name of the format that a model without a chat template was probably trained with; `plain` if unknown.

    Args:
        ref: of the model; only its own name counts, an adapter's before its base's.
        tokens: texts of the vocabulary.
    """
    parts = [part for part in (ref.adapter, ref.base) if part is not None and part.kind != "demo"]
    for part in parts:
        name = part.source.rstrip("/").rpartition("/")[2].casefold()
        for title, known in FORMATS.items():
            if known.names and re.search(known.names, name) and all(marker in tokens for marker in known.markers):
                return title
    return PLAIN


def default_template(template: Any) -> str | None:
    """The template that a model's files give for a plain conversation; None without one.

    Args:
        template: a text, named templates (a mapping, or the list of `tokenizer_config.json`), or nothing. Of several
            the one called `default` counts, and one alone whatever it is called.
    """
    if isinstance(template, list):
        template = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
    if isinstance(template, dict):
        template = next(iter(template.values())) if len(template) == 1 else template.get("default")
    return template if isinstance(template, str) and template.strip() else None


def template_text(written: str) -> str | None:
    """The chat template that a spec names: a format, a Jinja file, or the template itself; None for plain lines.

    Raises:
        ModelError: it is none of them, or not valid Jinja (codes `unknown-template`, `malformed-template`).
    """
    if written in FORMATS:
        return FORMATS[written].template
    text = written
    if is_template_file(written):
        path = resolve_path(written)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error}"
            message = f"The chat template {written} {reason}."
            raise ModelError(message, "Name a readable Jinja file.", code="unknown-template") from error
    elif "{{" not in written and "{%" not in written:
        raise ModelError(
            f"There is no prompt format '{written}'.",
            f"Name one of {', '.join(FORMATS)}, a Jinja file (NAME.jinja), or write the template itself.",
            code="unknown-template",
        )
    _check_syntax(text)
    return text


def is_template_file(written: str) -> bool:
    """Whether the spec's text names a file."""
    return written not in FORMATS and "{" not in written and written.endswith((".jinja", ".jinja2", ".j2", ".txt"))


def set_format(tokenizer: Any, ref: ModelReference, written: str | None = None) -> None:
    """Give a tokenizer the chat template that the spec names, or that its model's name shows if it has none.

    Args:
        tokenizer: of the model; changed in place.
        ref: of the model.
        written: `domain.template` of the spec; None without one.

    Raises:
        ModelError: as for `template_text`.
    """
    if written is not None:
        template = template_text(written)
    elif default_template(tokenizer.chat_template) is None:
        template = FORMATS[format_of_name(ref, tokenizer.get_vocab())].template
    else:
        if not _has_default(tokenizer.chat_template):
            tokenizer.chat_template = default_template(tokenizer.chat_template)
        return
    tokenizer.chat_template = None if template is None else template.replace(_OPENING, _opening(tokenizer))


def _has_default(template: Any) -> bool:
    return isinstance(template, str) or "default" in template


def _opening(tokenizer: Any) -> str:
    """What a template writes for the special tokens that the tokenizer puts before a text."""
    ids = list(tokenizer("")["input_ids"])
    return "{{ bos_token }}" if tokenizer.bos_token_id is not None and tokenizer.bos_token_id in ids else ""


def _check_syntax(text: str) -> None:
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(
            text.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        )
    except TemplateSyntaxError as error:
        raise ModelError(
            f"The chat template is not valid Jinja: {error}.", "Correct it.", code="malformed-template"
        ) from error
