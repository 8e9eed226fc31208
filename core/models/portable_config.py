"""Completes the JSON files of a saved model, so that transformers 4.5x, llama.cpp and vLLM read them as transformers 5.

transformers 5 renamed keys of `config.json` and `tokenizer_config.json`. Older readers ignore the new names and use a
default instead, such as rope theta 10000. The old names are therefore written beside the new ones; transformers 5
reads both. The weights are not touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.models.end_tokens import end_token_ids

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"

_THETA, _PARTIAL, _ORIGINAL = "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"
_OWN_NAMES = {"gpt_neox": {_THETA: "rotary_emb_base", _PARTIAL: "rotary_pct"}}
"""Old names of rope keys by model type, where they differ from the usual ones."""
_THETA_PER_LAYER_TYPE = ("gemma3", "gemma3_text", "gemma3n_text")
"""Model types whose old configuration has one theta for full attention and one for the sliding window."""
_SLIDING_PATTERN = ("gemma3_text", "cohere2")
"""Model types whose old configuration says "every n-th layer has full attention" instead of listing the layers."""
_WRITTEN_AS_TYPE = ("linear", "dynamic", "yarn")
"""Kinds of scaling that older readers find under `type` instead of `rope_type`."""
_FROM_TRANSFORMERS_5 = ("backend", "extra_special_tokens", "is_local", "local_files_only")


def make_portable(folder: Path, model: Any, tokenizer: Any) -> None:
    """Add the keys that older readers expect to the files that transformers 5 saved in `folder`.

    Args:
        folder: with `config.json` and `tokenizer_config.json`.
        model: the saved model.
        tokenizer: the saved tokenizer.

    Raises:
        OSError: a file is missing, or the disk is full or not writable.
    """
    _write(folder / CONFIG, portable_config(_read(folder / CONFIG)))
    _write(folder / TOKENIZER, portable_tokenizer_config(_read(folder / TOKENIZER), tokenizer))
    if model.can_generate():
        _write(folder / GENERATION, portable_generation_config(model, tokenizer))


def portable_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A `config.json` with the keys of transformers 4 beside those of transformers 5.

    Args:
        config: as transformers 5 writes it; the part of a text model inside it is completed as well.
    """
    added: dict[str, Any] = {}
    if isinstance(config.get("text_config"), Mapping):
        added["text_config"] = portable_config(config["text_config"])
    if "dtype" in config:
        added["torch_dtype"] = config["dtype"]
    if config.get("model_type") in _SLIDING_PATTERN and (pattern := _full_attention_every(config)):
        added["sliding_window_pattern"] = pattern
    return {**config, **_old_rope(config), **added}


def portable_tokenizer_config(config: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """A `tokenizer_config.json` from which transformers 4 makes the same tokenizer.

    The class of a tokenizer with a `tokenizer.json` is `PreTrainedTokenizerFast`, which reads that file as it is. The
    original class would rebuild parts of it: `LlamaTokenizerFast` adds a beginning-of-sequence token unless told not
    to, and transformers 5 does not save that setting.

    Args:
        config: as transformers 5 writes it.
        tokenizer: the saved tokenizer.
    """
    kept = {key: value for key, value in config.items() if key not in _FROM_TRANSFORMERS_5}
    if tokenizer.is_fast:
        kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in ("clean_up_tokenization_spaces", "model_input_names", "padding_side", "truncation_side"):
        kept[name] = getattr(tokenizer, name)  # their defaults differ between the versions
    if tokenizer.extra_special_tokens:
        kept["additional_special_tokens"] = [str(token) for token in tokenizer.extra_special_tokens]
    kept["added_tokens_decoder"] = {
        str(number): token.__getstate__() for number, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    if tokenizer.chat_template is not None:
        kept["chat_template"] = _template_entry(tokenizer.chat_template)
    return kept


def portable_generation_config(model: Any, tokenizer: Any) -> dict[str, Any]:
    """A `generation_config.json` with the model's own settings and every token that ends a reply.

    Settings that contradict each other (a temperature without sampling, as in Llama 2) are written as the base has
    them; transformers would refuse to save them. The mark of a configuration that transformers derived from
    `config.json` is dropped, because transformers derives such a one again and loses the end tokens.
    """
    written: dict[str, Any] = json.loads(
        model.generation_config.to_json_string(use_diff=True, keys_to_pop=["_from_model_config", "compile_config"])
    )
    ends = end_token_ids(model, tokenizer)
    if ends:
        written["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    return written


def _old_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rope keys of transformers 4; empty for a model without rope, or without an old form."""
    rope, model_type = config.get("rope_parameters"), config.get("model_type", "")
    if not rope:
        return {}
    full = rope.get("full_attention")
    if full is None and _THETA in rope:
        return _flat_rope(rope, config, model_type)
    if model_type in _THETA_PER_LAYER_TYPE:
        return {**_flat_rope(full, config, model_type), "rope_local_base_freq": rope["sliding_attention"][_THETA]}
    return {}


def _flat_rope(rope: Mapping[str, Any], config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    names = _OWN_NAMES.get(model_type, {})
    old = {names.get(key, key): rope[key] for key in (_THETA, _PARTIAL) if key in rope}
    kind = rope["rope_type"]
    scaling = {key: value for key, value in rope.items() if key not in (_THETA, _PARTIAL, "rope_type")}
    # transformers 4 expects longrope's original length beside the scaling. For yarn it divides by the one inside, which
    # gives factor 1 where it is the maximum itself; vLLM reads it beside the scaling as well.
    is_maximum = rope.get(_ORIGINAL) == config.get("max_position_embeddings")
    if _ORIGINAL in scaling and (kind == "longrope" or (kind == "yarn" and is_maximum)):
        old[_ORIGINAL] = scaling.pop(_ORIGINAL)
    if kind == "default" and not scaling:
        return old
    kinds = {"type": kind} if kind in _WRITTEN_AS_TYPE else {}
    if model_type == "phi3":  # its class accepts exactly type, long_factor and short_factor
        old["rope_scaling"] = {"type": kind, **scaling}
    else:
        old["rope_scaling"] = {**kinds, "rope_type": kind, **scaling}
    return old


def _full_attention_every(config: Mapping[str, Any]) -> int | None:
    """n if every n-th layer, and no other, has full attention."""
    layers: Sequence[str] = config.get("layer_types") or ()
    if "full_attention" not in layers:
        return None
    every = layers.index("full_attention") + 1
    regular = all((kind == "full_attention") == (number % every == 0) for number, kind in enumerate(layers, 1))
    return every if regular else None


def _template_entry(template: str | Mapping[str, str]) -> str | list[dict[str, str]]:
    """The chat template as `tokenizer_config.json` holds it: a text, or a list of named ones."""
    if isinstance(template, str):
        return template
    return [{"name": name, "template": text} for name, text in template.items()]


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
