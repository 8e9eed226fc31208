"""Compares the metadata of models that are to be merged; each comparison gives one row of the preflight table.

A merge adds weights position by position, so the same position must have the same meaning in both models:
architecture, tensors and vocabulary have to be equal. A different chat template leaves the weights intact, but it
changes the text that is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from core.contracts.events import CheckRow
from core.contracts.run_spec import Vocabulary
from core.models.memory import gigabytes
from core.models.metadata import ModelMetadata
from core.preflight.adapter_check import adapter_row
from core.preflight.check_rows import error_row, ok_row, warning_row
from core.preflight.configuration_check import ARCHITECTURE_KEYS
from core.preflight.format_check import alone_row, equals_base_row
from core.preflight.source_check import output_layer_rows, source_rows
from core.preflight.vocabulary_check import resized_tensors, tokenizer_row, vocabulary_row

_MOST_NAMED = 3
_OTHER_SENSES = ("vision_config", "audio_config", "speech_config", "vit_config")
"""Keys of a configuration that describe the parts of a model that read something else than text."""
_TEXT_PART = (
    "Only text models are merged. Choose a text-only model of the family, or save the language model by itself: load "
    "it with transformers, and write its language_model with save_pretrained."
)
_SAME_ORIGIN = "Choose models fine-tuned from the same original."


def check_alone(model: ModelMetadata, *, chat: bool = True, template: str | None = None) -> Iterator[CheckRow]:
    """Rows about one model: access, license, weights, architecture, adapter, chat template.

    Args:
        model: its metadata.
        chat: whether the model will answer prompts and so should have a chat template.
        template: prompt format that the spec names for it.
    """
    where = "on this machine" if model.cached else f"to be downloaded, {gigabytes(model.size_bytes)}"
    yield ok_row(model.ref, "found", f"{where}{'; gated, access granted' * model.gated}")
    yield _license_row(model)
    yield _weights_row(model)
    yield from source_rows(model)
    yield _architecture_row(model)
    if model.adapter is not None:
        yield adapter_row(model, model.adapter)
    if chat and (row := alone_row(model, template)):
        yield row


def check_against(
    model: ModelMetadata,
    base: ModelMetadata,
    *,
    chat: bool = True,
    vocabulary: Vocabulary = "refuse",
    template: str | None = None,
) -> Iterator[CheckRow]:
    """Rows that compare a pool member with the base.

    Args:
        model: metadata of the member.
        base: metadata of the base.
        chat: whether the model will answer prompts.
        vocabulary: what the run does with embeddings that have another number of rows.
        template: prompt format that the spec names for the member.
    """
    yield _architecture_equals(model, base)
    resized = resized_tensors(model, base) if vocabulary == "base" else frozenset()
    yield _tensors_equal(model, base, resized)
    yield from output_layer_rows(model, base)
    if resized:
        yield vocabulary_row(model, base)
    yield tokenizer_row(model, base, shared_part=bool(resized))
    yield _dtype_equals(model, base)
    if chat and (row := equals_base_row(model, base, template)):
        yield row


def _license_row(model: ModelMetadata) -> CheckRow:
    if model.license:
        return ok_row(model.ref, "license", model.license)
    if model.ref.kind == "folder":
        return ok_row(model.ref, "license", "not stated (local folder)")
    hint = "Ask its author before you publish a merge."
    return warning_row(model.ref, "license", "the model card states none", hint)


def _weights_row(model: ModelMetadata) -> CheckRow:
    quantized = model.config.get("quantization_config")
    if quantized is not None:
        kind = quantized.get("quant_method", "quantized") if isinstance(quantized, dict) else "quantized"
        hint = "Merge the full-precision model that it was made from."
        return error_row(model.ref, "weights", f"quantized ({kind})", hint)
    count = f"{model.parameters / 1e6:,.1f} million parameters in {len(model.own_tensors)} tensors"
    return ok_row(
        model.ref, "weights", f"{'pickles' if model.pickled_bytes else 'safetensors'}, {model.dtype}, {count}"
    )


def _architecture_row(model: ModelMetadata) -> CheckRow:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if other := next((key for key in _OTHER_SENSES if model.config.get(key)), None):
        name = model.architecture or model.model_type
        detail = f"{name} reads images or sound too ({other}): its language model is only a part of it"
        return error_row(model.ref, "architecture", detail, _TEXT_PART)
    if model.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return ok_row(model.ref, "architecture", model.architecture or model.model_type)
    detail = f"transformers has no language model of the type '{model.model_type or 'unnamed'}'"
    return error_row(model.ref, "architecture", detail, "Models that need code from their repository are not loaded.")


def _architecture_equals(model: ModelMetadata, base: ModelMetadata) -> CheckRow:
    check = "architecture equals base"
    if model.model_type != base.model_type or _other_class(model, base):
        mine, theirs = (one.architecture or one.model_type for one in (model, base))
        if mine == theirs:
            mine, theirs = (f"model_type {one.model_type or 'unnamed'}" for one in (model, base))
        detail = f"{mine}, the base is {theirs}"
        return error_row(model.ref, check, detail, _SAME_ORIGIN)
    if differing := _differing_keys(model.config, base.config, ARCHITECTURE_KEYS):
        return error_row(model.ref, check, differing, _SAME_ORIGIN)
    return ok_row(model.ref, check, model.architecture or model.model_type)


def _other_class(model: ModelMetadata, base: ModelMetadata) -> bool:
    """Whether the configurations name different classes that transformers has.

    Old releases wrote other names, and some name none; the class is chosen by `model_type`.
    """
    import transformers

    named = {one.architecture for one in (model, base) if hasattr(transformers, one.architecture or "-")}
    return len(named) > 1


def _differing_keys(mine: dict[str, Any], theirs: dict[str, Any], keys: Sequence[str]) -> str:
    """Those of `keys` that both configurations have with different values, as a phrase."""
    shared = [key for key in keys if key in mine and key in theirs and mine[key] != theirs[key]]
    return "; ".join(f"{key} is {mine[key]}, the base's {theirs[key]}" for key in shared)


def _tensors_equal(model: ModelMetadata, base: ModelMetadata, resized: frozenset[str]) -> CheckRow:
    heads = {*model.heads, *base.heads}  # `output_layer_rows` compares them
    mine = {name: facts for name, facts in model.own_tensors.items() if name not in heads or name in base.own_tensors}
    theirs = {name: facts for name, facts in base.own_tensors.items() if name not in heads or name in mine}
    missing, extra = sorted(theirs.keys() - mine.keys()), sorted(mine.keys() - theirs.keys())
    shared = [name for name in mine if name in theirs and name not in resized]
    reshaped = [name for name in shared if mine[name].shape != theirs[name].shape]
    problems = []
    if missing:
        problems.append(f"lacks {_first_names(missing)}")
    if extra:
        problems.append(f"has in addition {_first_names(extra)}")
    if reshaped:
        shapes = [f"{name} {_shape(mine[name].shape)} instead of {_shape(theirs[name].shape)}" for name in reshaped]
        problems.append(f"shapes differ: {_first_names(shapes)}")
    if not problems:
        except_rows = ", except for the vocabulary's rows" * bool(resized)
        return ok_row(model.ref, "tensors equal base", f"{len(mine)} names and shapes agree{except_rows}")
    only_vocabulary = not (missing or extra) and set(reshaped) <= resized_tensors(model, base)
    hint = (
        "The expert has added tokens or padding rows: set pool.vocabulary to base to merge on the base's rows, or "
        "choose a model with the base's vocabulary."
        if only_vocabulary
        else "Choose models of the same size, fine-tuned from the same original."
    )
    return error_row(model.ref, "tensors equal base", "; ".join(problems), hint)


def _dtype_equals(model: ModelMetadata, base: ModelMetadata) -> CheckRow:
    check = "number format equals base"
    if model.dtype == base.dtype:
        return ok_row(model.ref, check, model.dtype)
    hint = "Task vectors are formed in float32 from both; the merge is saved in the run's number format."
    return warning_row(model.ref, check, f"{model.dtype}, the base is {base.dtype}", hint)


def _first_names(items: Sequence[str]) -> str:
    more = f" and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else ""
    return ", ".join(items[:_MOST_NAMED]) + more


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
