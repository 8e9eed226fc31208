"""Reports where a model's weights come from if that is not plain safetensors, and whether output layers fit."""

from __future__ import annotations

from collections.abc import Iterator

from core.contracts.events import CheckRow
from core.models.class_tensors import can_be_saved, unlike_configuration
from core.models.memory import gigabytes
from core.models.metadata import ModelMetadata
from core.models.output_layer import OWN_OUTPUT_LAYER_HINT
from core.models.pickled_weights import conversion_seconds
from core.preflight.check_rows import error_row, ok_row, warning_row

_SECONDS_PER_MINUTE = 60


def source_rows(model: ModelMetadata) -> Iterator[CheckRow]:
    """Rows about converted and pickled weights, left-over adapters, and whether a merge can be saved."""
    if model.conversion:
        detail = f"the Hub's conversion of the pickled weights is used: {model.conversion}"
        yield ok_row(model.ref, "converted weights", detail)
    if model.pickled_bytes:
        yield _pickle_row(model)
    if model.leftover_adapter:
        detail = "a LoRA adapter lies beside the whole weights and is not applied"
        hint = "Write base+lora if the adapter is meant, or remove it from the folder."
        yield warning_row(model.ref, "left-over adapter", detail, hint)
    unlike = unlike_configuration({name: facts.shape for name, facts in model.tensors.items()}, model.config)
    if unlike:
        yield error_row(model.ref, "configuration fits weights", unlike, "Use the config.json of these weights.")
    elif not can_be_saved(model.tensors, model.config):
        detail = "transformers cannot write this architecture's tensors so that they load again"
        yield error_row(model.ref, "saving", detail, "Choose a model of another architecture.")


def output_layer_rows(model: ModelMetadata, base: ModelMetadata) -> Iterator[CheckRow]:
    """A row if one model's output layer is its embedding and the other's is a tensor of its own, or may be."""
    check = "output layer equals base"
    if model.has_own_head == base.has_own_head or not (model.heads and base.heads):
        return
    if base.has_own_head:
        yield ok_row(model.ref, check, "its embedding is also its output layer; the base's has values of its own")
    elif model.same_head is False:
        detail = "it has an output layer of its own, and the base's output layer is its embedding"
        yield error_row(model.ref, check, detail, OWN_OUTPUT_LAYER_HINT)
    elif model.same_head:
        detail = "saved a second time; it equals the embedding in a sample, and loading compares all of it"
        yield ok_row(model.ref, check, detail)
    else:
        detail = "saved a second time; whether it equals the embedding is known when it is loaded"
        yield warning_row(model.ref, check, detail, OWN_OUTPUT_LAYER_HINT)


def _pickle_row(model: ModelMetadata) -> CheckRow:
    minutes = max(1, round(conversion_seconds(model.pickled_bytes) / _SECONDS_PER_MINUTE))
    detail = (
        f"pickles, converted to safetensors once: {gigabytes(model.pickled_bytes)} of disk, about {minutes} min (an "
        "estimate at 150 MB/s); a separate process without network reads them"
    )
    if not model.cached:
        detail += "; their tensors are checked after the download"
    hint = "Pickles can contain code; only tensors are accepted. Prefer a revision with safetensors."
    return warning_row(model.ref, "pickled weights", detail, hint)
