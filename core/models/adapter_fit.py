"""Tries a LoRA adapter on an empty model (meta device), so that preflight knows whether peft can merge it."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.models.class_tensors import UNUSABLE, empty_model

_DATA_DRIVEN = ("loftq", "corda", "eva", "olora", "pissa")
"""Initial values that need data or weights. Training has replaced them; `core.models.loading` leaves them to peft."""


def adapter_problem(
    config: Mapping[str, Any],
    base_names: Sequence[str],
    adapter: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
) -> str:
    """Why peft cannot apply an adapter to its base, as a phrase; "" if it can, or if that cannot be tried.

    Args:
        config: the base's configuration.
        base_names: names of the base's tensors.
        adapter: content of `adapter_config.json`.
        shapes: of the adapter's tensors by name.
    """
    import torch
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    empty = empty_model(config, list(base_names))
    if empty is None or empty.converters:
        return ""
    values = {**adapter, "base_model_name_or_path": ""}
    if str(values.get("init_lora_weights")).startswith(_DATA_DRIVEN):
        values["init_lora_weights"] = True
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(copy.deepcopy(empty.model), _read(PeftConfig, values))
            state = {name: torch.empty(tuple(shape)) for name, shape in shapes.items()}
            missing = set_peft_model_state_dict(model, state, low_cpu_mem_usage=True).missing_keys
    except UNUSABLE as error:
        return f"peft cannot apply it: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}"
    absent = sorted(name for name in missing if ".lora_" in name)
    if absent:
        name = absent[0].removeprefix("base_model.model.").replace(".default", "")
        return f"it lacks {len(absent):,} tensors that adapter_config.json describes, such as {name}"
    return ""


def _read(config_class: Any, values: Mapping[str, Any]) -> Any:
    """The configuration as peft reads it from a folder: keys of newer releases are left out."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "adapter_config.json").write_text(json.dumps(values), encoding="utf-8")
        return config_class.from_pretrained(folder)
