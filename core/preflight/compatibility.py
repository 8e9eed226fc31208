"""Can these models be merged? Comparisons of metadata, each of which gives one row of the preflight table.

Merging adds weights position by position, so two models must mean the same thing by each position: the same
architecture, tensors and vocabulary. A differing chat template does not spoil weights but changes what is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from core.contracts.events import CheckRow
from core.contracts.run_spec import Vocabulary
from core.models.memory import gigabytes
from core.models.metadata import AdapterMetadata, ModelMetadata
from core.models.vocabulary import CHOICE, differing_tokens, resized_by_vocabulary, vocabulary_row

_SHOWN = 3
# Values that leave every tensor shape alone but change what the tensors compute.
_SAME_COMPUTATION = ("num_attention_heads", "num_key_value_heads", "hidden_act", "tie_word_embeddings")
_NEAR_COMPUTATION = ("rope_theta", "rope_scaling", "rope_parameters", "rms_norm_eps", "sliding_window")


def check_alone(model: ModelMetadata, *, chat: bool = True) -> Iterator[CheckRow]:
    """Rows that need no other model: access, licence, weights, architecture, adapter, chat template.

    Args:
        chat: whether the model will be talked to, and so should have a chat template.
    """
    name = str(model.ref)
    where = "on this machine" if model.cached else f"to be downloaded, {gigabytes(model.size_bytes)}"
    yield CheckRow(model=name, check="found", status="ok", detail=f"{where}{'; gated, access granted' * model.gated}")
    yield _license_row(model)
    yield _weights_row(model)
    yield _architecture_row(model)
    if model.adapter is not None:
        yield _adapter_row(name, model, model.adapter)
    if chat and model.chat_template is None:
        yield CheckRow(
            model=name,
            check="chat template",
            status="warning",
            detail="none; prompts are given as plain lines",
            hint="Prefer an instruction-tuned model.",
        )


def check_against(
    model: ModelMetadata, base: ModelMetadata, *, chat: bool = True, vocabulary: Vocabulary = "refuse"
) -> Iterator[CheckRow]:
    """Rows that compare a pool member with the base.

    Args:
        chat: whether the model will be talked to.
        vocabulary: what the run does with other numbers of rows in the embedding.
    """
    yield _same_architecture(model, base)
    resized = resized_by_vocabulary(model, base) if vocabulary == "base" else frozenset()
    yield _same_tensors(model, base, resized)
    if resized:
        yield vocabulary_row(model, base)
    yield _same_tokenizer(model, base, shared_part=bool(resized))
    yield _same_dtype(model, base)
    if chat and model.chat_template is not None:
        yield _same_chat_template(model, base)


def _license_row(model: ModelMetadata) -> CheckRow:
    name = str(model.ref)
    if model.license:
        return CheckRow(model=name, check="licence", status="ok", detail=model.license)
    if model.ref.kind == "folder":
        return CheckRow(model=name, check="licence", status="ok", detail="not stated (local folder)")
    return CheckRow(
        model=name,
        check="licence",
        status="warning",
        detail="the model card names none",
        hint="Ask its author before you publish a merge.",
    )


def _weights_row(model: ModelMetadata) -> CheckRow:
    name, quantized = str(model.ref), model.config.get("quantization_config")
    if quantized:
        kind = quantized.get("quant_method", "quantised") if isinstance(quantized, dict) else "quantised"
        return CheckRow(
            model=name,
            check="weights",
            status="error",
            detail=f"quantised ({kind})",
            hint="Merge the full-precision model it was made from.",
        )
    count = f"{model.parameters / 1e6:,.1f} million parameters in {len(model.own_tensors)} tensors"
    return CheckRow(model=name, check="weights", status="ok", detail=f"safetensors, {model.dtype}, {count}")


def _architecture_row(model: ModelMetadata) -> CheckRow:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = str(model.ref)
    if model.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return CheckRow(model=name, check="architecture", status="ok", detail=model.architecture or model.model_type)
    return CheckRow(
        model=name,
        check="architecture",
        status="error",
        detail=f"'{model.model_type or 'unnamed'}' is no language model that transformers supports by itself",
        hint="Models that bring their own code are not loaded.",
    )


def _adapter_row(name: str, model: ModelMetadata, adapter: AdapterMetadata) -> CheckRow:
    problem = _adapter_problem(model, adapter)
    if problem:
        hint = "Name the base it was trained on before the '+'."
        return CheckRow(model=name, check="adapter", status="error", detail=problem, hint=hint)
    detail = f"LoRA of rank {adapter.config.get('r')}, fits its base"
    trained_on = str(adapter.config.get("base_model_name_or_path") or "")
    if model.ref.kind == "hub" and trained_on and trained_on != model.ref.source:
        hint = "Shapes fit; check that this is the right base."
        return CheckRow(
            model=name, check="adapter", status="warning", detail=f"{detail}; trained on {trained_on}", hint=hint
        )
    return CheckRow(model=name, check="adapter", status="ok", detail=detail)


def _adapter_problem(model: ModelMetadata, adapter: AdapterMetadata) -> str:
    """What is wrong with the first LoRA matrix that fits no weight of the base; "" when all fit."""
    for name, facts in adapter.tensors.items():
        for part, axis, width in ((".lora_A.weight", 1, -1), (".lora_B.weight", 0, 0)):
            if not name.endswith(part):
                continue
            target = name.removeprefix("base_model.model.").removesuffix(part) + ".weight"
            weight = model.tensors.get(target)
            if weight is None:
                return f"changes {target}, which the base does not have"
            if len(facts.shape) != 2 or facts.shape[axis] != weight.shape[width]:
                return f"{name} is {_shape(facts.shape)}, the base's weight {_shape(weight.shape)}"
    return ""


def _same_architecture(model: ModelMetadata, base: ModelMetadata) -> CheckRow:
    name, check = str(model.ref), "architecture equals base"
    if (model.architecture, model.model_type) != (base.architecture, base.model_type):
        return CheckRow(
            model=name,
            check=check,
            status="error",
            detail=f"{model.architecture or model.model_type}, the base is {base.architecture or base.model_type}",
            hint="Choose models fine-tuned from the same original.",
        )
    differing = _differences(model.config, base.config, _SAME_COMPUTATION)
    if differing:
        hint = "Choose models fine-tuned from the same original."
        return CheckRow(model=name, check=check, status="error", detail=differing, hint=hint)
    differing = _differences(model.config, base.config, _NEAR_COMPUTATION)
    if differing:
        hint = "The merge uses the base's value."
        return CheckRow(model=name, check=check, status="warning", detail=differing, hint=hint)
    return CheckRow(model=name, check=check, status="ok", detail=model.architecture)


def _differences(mine: dict[str, Any], theirs: dict[str, Any], keys: Sequence[str]) -> str:
    """Keys that both configurations name with differing values."""
    shared = [key for key in keys if key in mine and key in theirs and mine[key] != theirs[key]]
    return "; ".join(f"{key} is {mine[key]}, the base's {theirs[key]}" for key in shared)


def _same_tensors(model: ModelMetadata, base: ModelMetadata, resized: frozenset[str]) -> CheckRow:
    mine, theirs = model.own_tensors, base.own_tensors
    missing, extra = sorted(theirs.keys() - mine.keys()), sorted(mine.keys() - theirs.keys())
    shared = [name for name in mine if name in theirs and name not in resized]
    reshaped = [name for name in shared if mine[name].shape != theirs[name].shape]
    problems = []
    if missing:
        problems.append(f"lacks {_some(missing)}")
    if extra:
        problems.append(f"has {_some(extra)} more")
    if reshaped:
        shapes = [f"{name} {_shape(mine[name].shape)} instead of {_shape(theirs[name].shape)}" for name in reshaped]
        problems.append(f"shapes differ: {_some(shapes)}")
    name, check = str(model.ref), "tensors equal base"
    if not problems:
        but = ", but for the vocabulary's rows" * bool(resized)
        return CheckRow(model=name, check=check, status="ok", detail=f"{len(mine)} names and shapes agree{but}")
    only_vocabulary = not (missing or extra) and set(reshaped) <= resized_by_vocabulary(model, base)
    hint = (
        f"Tokens were added, or rows to fill up: {CHOICE}, or choose a model with the base's vocabulary."
        if only_vocabulary
        else "Choose models of the same size, fine-tuned from the same original."
    )
    return CheckRow(model=name, check=check, status="error", detail="; ".join(problems), hint=hint)


def _same_tokenizer(model: ModelMetadata, base: ModelMetadata, *, shared_part: bool) -> CheckRow:
    """Args: shared_part: only the numbers that both vocabularies have need to stand for the same tokens."""
    name, check = str(model.ref), "tokenizer equals base"
    mine, theirs = model.tokenizer, base.tokenizer
    if mine.sha256 is None or theirs.sha256 is None:
        whose = name if mine.sha256 is None else str(base.ref)
        hint = "Make sure that both models share one vocabulary."
        return CheckRow(
            model=name, check=check, status="warning", detail=f"{whose} has no tokenizer.json to compare", hint=hint
        )
    if shared_part and differing_tokens(model, base) == []:
        detail = f"the tokens that both have agree ({mine.size:,}; the base has {theirs.size:,})"
        return CheckRow(model=name, check=check, status="ok", detail=detail)
    if mine.sha256 != theirs.sha256:
        detail = f"the vocabularies differ ({mine.size:,} tokens; the base has {theirs.size:,})"
        hint = "The same row would stand for different words; choose a model with the base's tokenizer."
        return CheckRow(model=name, check=check, status="error", detail=detail, hint=hint)
    if mine.added != theirs.added:
        changed = sorted({*mine.added.items()} ^ {*theirs.added.items()})
        detail = f"added tokens differ: {_some([f'{text} ({number})' for number, text in changed])}"
        hint = "The merge uses the base's tokenizer."
        return CheckRow(model=name, check=check, status="warning", detail=detail, hint=hint)
    detail = f"{mine.size:,} tokens, {len(mine.added)} of them added"
    return CheckRow(model=name, check=check, status="ok", detail=detail)


def _same_dtype(model: ModelMetadata, base: ModelMetadata) -> CheckRow:
    name, check = str(model.ref), "number format equals base"
    if model.dtype == base.dtype:
        return CheckRow(model=name, check=check, status="ok", detail=model.dtype)
    detail = f"{model.dtype}, the base is {base.dtype}"
    hint = "Both are read as BF16."
    return CheckRow(model=name, check=check, status="warning", detail=detail, hint=hint)


def _same_chat_template(model: ModelMetadata, base: ModelMetadata) -> CheckRow:
    name, check = str(model.ref), "chat template equals base"
    if (model.chat_template or "").strip() == (base.chat_template or "").strip():
        return CheckRow(model=name, check=check, status="ok", detail="identical")
    return CheckRow(
        model=name,
        check=check,
        status="warning",
        detail="it differs from the base's",
        hint="The merge is scored and saved with the base's template; an expert may lose some accuracy by it.",
    )


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
