"""The tokens at which a model's reply ends, collected from every file that names one.

Published models disagree about where the end of a turn is named: `generation_config.json`, `config.json`, the
tokenizer's `eos_token`, or only the chat template. A model that is stopped at one of them and ends its turn with
another writes on until the limit. Generation stops at, and an export saves, the union.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from core.errors import ModelError
from core.models.chat_format import marker_token_ids, render

_ANSWER = "Yes"
_EXAMPLE = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": _ANSWER})


def end_token_ids(model_or_config: Any, tokenizer: Any) -> list[int]:
    """Ids of all tokens that end a reply, without duplicates; empty when no file names one.

    The order is: `generation_config`, `config`, the tokenizer's end of sequence, the chat template's end of turn. An id
    is left out if it comes from the defaults of the configuration's class and stands for ordinary text.

    Args:
        model_or_config: a loaded model, whose `generation_config` counts too, or only its configuration.
        tokenizer: of the model, with its chat template.
    """
    config = getattr(model_or_config, "config", model_or_config)
    generation = getattr(model_or_config, "generation_config", None)
    named = list(_ids(getattr(generation, "eos_token_id", None)))
    from_config = list(_ids(getattr(config.get_text_config(), "eos_token_id", None)))
    if getattr(generation, "_from_model_config", False):  # transformers derived it from the configuration
        named, from_config = [], [*named, *from_config]
    markers = marker_token_ids(tokenizer)
    if ordinary := [token for token in from_config if token not in markers]:
        defaults = set(_ids(_class_default(config)))
        from_config = [token for token in from_config if token not in ordinary or token not in defaults]
    own = [*named, *from_config, *_ids(tokenizer.eos_token_id), *_ids(end_of_turn(tokenizer))]
    return list(dict.fromkeys(own))


def end_of_turn(tokenizer: Any) -> int | None:
    """The token that the chat template puts after an assistant's message; None if it puts none there.

    Only special and added tokens count: a template that separates turns by ordinary text has no such token.
    """
    if tokenizer.chat_template is None:
        return None
    try:
        text = render(tokenizer, _EXAMPLE, generation_prompt=False)
    except (ModelError, ValueError):  # ValueError: several named templates, none of them the default
        return None
    if _ANSWER not in text:
        return None
    ending = tokenizer(text[text.rindex(_ANSWER) + len(_ANSWER) :], add_special_tokens=False)["input_ids"]
    markers = marker_token_ids(tokenizer) - {tokenizer.bos_token_id} | set(_ids(tokenizer.eos_token_id))
    return next((int(token) for token in ending if token in markers), None)


def padding_id(tokenizer: Any, ends: Iterable[int] = ()) -> int:
    """The token to pad a batch with. Padding is masked, so that any token serves for a tokenizer that names none."""
    named = (tokenizer.pad_token_id, tokenizer.eos_token_id, *ends)
    return next((int(token) for token in named if token is not None), 0)


def _ids(value: Any) -> Iterator[int]:
    """The ids of a setting that holds none, one or a list."""
    for token in value if isinstance(value, list | tuple) else (value,):
        if token is not None:
            yield int(token)


def _class_default(config: Any) -> Any:
    """The end token that configurations of this class have when the file names none."""
    return getattr(type(config)().get_text_config(), "eos_token_id", None)
