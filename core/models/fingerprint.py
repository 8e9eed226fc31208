"""A hash of weights that is the same for a live model and for the files it was saved to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from core.models.loading import saved_state


def sha256_of_model(model: Any) -> str:
    """sha256 over a live model's tensors (tied ones once) as they are saved, in the order of their saved names."""
    return sha256_of_state(saved_state(model))


def sha256_of_folder(folder: Path) -> str:
    """sha256 over the tensors of a saved model's safetensors files, which are read tensor by tensor.

    Raises:
        OSError: a file cannot be read; `safetensors.SafetensorError` when it is damaged.
    """
    return _sha256(_saved_tensors(folder))


def sha256_of_state(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    return _sha256((name, state[name]) for name in sorted(state))


def _saved_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of all shards, sorted by name; a later shard replaces a tensor of the same name."""
    with ExitStack() as opened:
        shards: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            shard = opened.enter_context(safe_open(path, framework="pt"))
            shards.update(dict.fromkeys(shard.keys(), shard))
        for name in sorted(shards):
            yield name, shards[name].get_tensor(name)


def _sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{data.dtype}|{tuple(data.shape)}|".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
