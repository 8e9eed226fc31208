"""A hash of weights, the same for a live model and for the files it was saved to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from core.models.loading import untied_state


def sha256_of_model(model: Any) -> str:
    """sha256 over a live model's tensors (tied ones once), in the order of their names."""
    return sha256_of_state(untied_state(model))


def sha256_of_folder(folder: Path) -> str:
    """sha256 over the tensors of a saved model's safetensors files."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return sha256_of_state(tensors)


def sha256_of_state(state: Mapping[str, Tensor]) -> str:
    """sha256 of names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
