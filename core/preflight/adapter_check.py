"""Checks from headers whether a LoRA adapter can be merged into its base.

PEFT merges factors into weights, and replaces whole modules that were saved with the adapter (`modules_to_save`). It
does not add rows to an embedding, and an output layer that is replaced is not tied to the embedding any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.contracts.events import CheckRow
from core.models.adapter_fit import adapter_problem
from core.models.files import TensorFacts
from core.models.metadata import AdapterMetadata, ModelMetadata
from core.preflight.check_rows import error_row, ok_row, warning_row

_PREFIX = "base_model.model."
# Part of an adapter's tensor name -> which axis of the base's weight its own axis equals.
_FACTORS = (
    (".lora_A.weight", 1, -1),
    (".lora_B.weight", 0, 0),
    (".lora_embedding_A", 1, 0),
    (".lora_embedding_B", 0, 1),
)
_CONV1D = ("gpt2",)
"""Model types whose weights are stored as (in, out)."""


def adapter_row(model: ModelMetadata, adapter: AdapterMetadata) -> CheckRow:
    """Whether the adapter of a `base+lora` model fits its base."""
    problem = _shape_problem(model, adapter)
    if problem:
        return error_row(model.ref, "adapter", problem, "Name the base it was trained on before the '+'.")
    if problem := _untied_problem(model, adapter):
        hint = "Train the adapter with ensure_weight_tying, or on a base with an output layer of its own."
        return error_row(model.ref, "adapter", problem, hint)
    shapes = {name: facts.shape for name, facts in adapter.tensors.items()}
    known = bool(shapes) or not model.pickled_bytes
    if known and (problem := adapter_problem(model.config, list(model.tensors), adapter.config, shapes)):
        hint = "Download or export the adapter again, or correct its adapter_config.json."
        return error_row(model.ref, "adapter", problem, hint)
    trained_on = str(adapter.config.get("base_model_name_or_path") or "")
    if (Path(trained_on) / "adapter_config.json").is_file() and not (Path(trained_on) / "config.json").is_file():
        detail = f"it was trained on another adapter, {trained_on}"
        return error_row(model.ref, "adapter", detail, "Merge that adapter into its base first, and name the result.")
    detail = f"LoRA of rank {adapter.config.get('r')}, fits its base"
    if model.ref.kind == "hub" and trained_on and trained_on != model.ref.source:
        hint = "The shapes fit; check that this is the right base."
        return warning_row(model.ref, "adapter", f"{detail}; trained on {trained_on}", hint)
    return ok_row(model.ref, "adapter", detail)


def replaced_tensors(adapter: AdapterMetadata) -> dict[str, TensorFacts]:
    """The whole tensors that the adapter brings along (`modules_to_save`), by the base's names."""
    return {
        name.removeprefix(_PREFIX).replace(".modules_to_save.default", ""): facts
        for name, facts in adapter.tensors.items()
        if ".lora_" not in name and name.endswith((".weight", ".bias"))
    }


def _shape_problem(model: ModelMetadata, adapter: AdapterMetadata) -> str:
    """The first of the adapter's tensors that does not fit the base, as a phrase; "" when all fit."""
    for name, facts in adapter.tensors.items():
        for part, axis, width in _FACTORS:
            if not name.endswith(part):
                continue
            target = name.removeprefix(_PREFIX).removesuffix(part) + ".weight"
            weight = _base_tensor(model, target)
            if weight is None:
                return f"changes {target}, which the base does not have"
            expected = _transposed(weight.shape) if model.model_type in _CONV1D else weight.shape
            if len(facts.shape) != 2 or facts.shape[axis] != expected[width]:
                return f"{name} has shape {_shape(facts.shape)}, the base's weight {_shape(weight.shape)}"
    for name, facts in replaced_tensors(adapter).items():
        weight = _base_tensor(model, name)
        if weight is not None and facts.shape != weight.shape:
            return f"replaces {name} by {_shape(facts.shape)}, the base has {_shape(weight.shape)}"
    return ""


def _untied_problem(model: ModelMetadata, adapter: AdapterMetadata) -> str:
    """How merging the adapter would separate a tied output layer from its embedding, as a phrase; "" if it does not."""
    if model.has_own_head or adapter.config.get("ensure_weight_tying"):
        return ""
    replaced, saved_as = replaced_tensors(adapter), adapter.config.get("modules_to_save") or ()
    for head, embedding in model.heads.items():
        named = [name for name in (head, embedding) if _module(name) in saved_as]
        equal = {head, embedding} <= replaced.keys() and adapter.same_head
        if named and not equal:
            return (
                f"replaces {' and '.join(named)}, which the base computes from one tensor: after merging they would "
                "differ"
            )
    return ""


def _base_tensor(model: ModelMetadata, name: str) -> TensorFacts | None:
    tensors: Mapping[str, TensorFacts] = model.tensors
    return tensors.get(name) or tensors.get(model.heads.get(name, ""))


def _module(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2]


def _transposed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(reversed(shape))


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
