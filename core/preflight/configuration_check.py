"""Compares the configurations of a pool's members; each key that differs gives one row of the preflight table.

The values are those that transformers computes with: spellings of older and newer versions agree, and a key that a
file leaves out has the default of its class. Each member is measured with its own value, the merge with one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from core.contracts.events import CheckRow
from core.models.metadata import ModelMetadata
from core.models.own_settings import configuration_values
from core.preflight.check_rows import error_row, ok_row, warning_row

CHECK = "configuration"
ARCHITECTURE_KEYS = ("num_attention_heads", "num_key_value_heads", "hidden_act", "num_hidden_layers")
"""Keys that change what the tensors mean and leave every shape as it is; members must agree on them."""

_LONGEST = 60


def configuration_rows(
    members: Sequence[ModelMetadata], owner: ModelMetadata, ancestor: ModelMetadata | None = None
) -> Iterator[CheckRow]:
    """Rows for each member whose configuration is not that of the merge.

    Args:
        members: the base and the experts.
        owner: the member whose configuration the merge has.
        ancestor: model outside the pool that only gives weights.
    """
    theirs = _values(owner)
    if isinstance(theirs, str):
        yield error_row(owner.ref, CHECK, theirs, _UNREADABLE)
        return
    for model in (*members, *((ancestor,) if ancestor else ())):
        if model is owner or model.model_type != owner.model_type:
            continue
        mine = _values(model)
        if isinstance(mine, str):
            yield error_row(model.ref, CHECK, mine, _UNREADABLE)
        elif differing := _differing(mine, theirs):
            used = "Only the weights of an ancestor are used" if model is ancestor else "It is measured with its own"
            hint = f"{used}; the merge uses the value of {owner.ref} (pool.config)."
            for key in differing:
                detail = f"{key} is {_shown(mine.get(key))}; {owner.ref} has {_shown(theirs.get(key))}"
                yield warning_row(model.ref, f"{CHECK}: {key}", detail, hint)
        else:
            yield ok_row(model.ref, CHECK, f"agrees with {owner.ref}")


def context_length(model: ModelMetadata) -> int | None:
    """The longest text in tokens that the model was made for; None when its configuration has no such limit."""
    values = _values(model)
    key = _CONTEXT.get(model.model_type, "max_position_embeddings")
    length = None if isinstance(values, str) else values.get(key)
    return length if isinstance(length, int) and length > 0 else None


_CONTEXT = {"gpt2": "n_positions", "gptj": "n_positions", "codegen": "n_positions", "mpt": "max_seq_len"}
"""Key of the context's length in configurations that have another name for it."""

_UNREADABLE = "Save the model again with the transformers version that it was made with, or correct its config.json."


def _values(model: ModelMetadata) -> dict[str, Any] | str:
    """The model's configuration as transformers reads it; a phrase when transformers cannot read it."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    from core.models.class_tensors import UNUSABLE

    if model.model_type not in CONFIG_MAPPING:
        return {}  # the row on the architecture reports it
    try:
        return configuration_values(CONFIG_MAPPING[model.model_type].from_dict(dict(model.config)))
    except (StrictDataclassError, *UNUSABLE) as error:
        return f"config.json cannot be read: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}"


def _differing(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    keys = sorted(mine.keys() | theirs.keys())
    compared_elsewhere = (*ARCHITECTURE_KEYS, "tie_word_embeddings")  # `source_check.output_layer_rows`
    return [key for key in keys if key not in compared_elsewhere and mine.get(key) != theirs.get(key)]


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
