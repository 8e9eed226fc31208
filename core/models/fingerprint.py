"""A hash of weights that is the same for a live model and for the files it was saved to.

The published hash is one sha256 over all tensors in the order of their names, so a single core computes it, at 1 to 1.5
GB/s. Two things keep it off the critical path on a GPU: it is computed in the background while the model is measured,
and a hash of each tensor is computed with it in further threads. A saved folder is then compared with the hashes of its
tensors by all cores, instead of with the hash of the whole by one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from core.models.loading import saved_state

_MOST_THREADS = 16


class WeightHash(NamedTuple):
    """Hashes of a model's weights.

    Attributes:
        sha256: over all tensors.
        parts: sha256 of each tensor by its saved name; empty where they were not computed.
    """

    sha256: str
    parts: Mapping[str, bytes]

    def as_scored(self) -> dict[str, Any]:
        """The hashes as arguments of `core.models.export.export_model`."""
        return {"scored_sha256": self.sha256, "scored_parts": self.parts}


def start_hash(model: Any, *, parts: bool = False) -> Callable[[], WeightHash]:
    """Start to hash a live model's weights; the returned function waits for the hash.

    On a GPU the hash is computed in the background, and the weights must not change until it is complete. On a
    processor it is computed here, because a thread would slow the model down, and `parts` is ignored.

    Args:
        model: the live model.
        parts: whether to hash each tensor too.
    """
    if model.device.type != "cuda":
        known = WeightHash(sha256_of_model(model), {})
        return lambda: known
    written = torch.cuda.current_stream(model.device).record_event()
    worker = ThreadPoolExecutor(1, thread_name_prefix="hash")
    waiting = worker.submit(_hash_on_device, model, written, parts)
    worker.shutdown(wait=False)  # the thread ends after its work
    return waiting.result


def hash_state(state: Mapping[str, Tensor]) -> WeightHash:
    """The hash over all tensors, and that of each tensor, which a second thread computes from the same copy."""
    digest, parts = hashlib.sha256(), dict[str, bytes]()
    with ThreadPoolExecutor(1) as second:
        for name in sorted(state):
            tensor = state[name].detach().cpu()
            part = second.submit(_sha256_of_tensor, name, tensor)
            digest.update(_header(name, tensor))
            digest.update(_bytes(tensor))
            parts[name] = part.result()
    return WeightHash(digest.hexdigest(), parts)


def sha256_of_model(model: Any) -> str:
    """sha256 over a live model's tensors (tied ones once) as they are saved, in the order of their saved names."""
    return sha256_of_state(saved_state(model))


def sha256_of_folder(folder: Path) -> str:
    """sha256 over the tensors of a saved model's safetensors files, which are read tensor by tensor.

    Raises:
        OSError: a file cannot be read; `safetensors.SafetensorError` when it is damaged.
    """
    with _opened(folder) as shards:
        return _sha256((name, shards[name].get_tensor(name)) for name in sorted(shards))


def folder_holds(folder: Path, weights: WeightHash) -> bool:
    """Whether a saved model's safetensors files hold exactly the hashed weights.

    With hashes of the parts, tensors are compared in as many threads as there are cores.

    Raises:
        OSError: a file cannot be read; `safetensors.SafetensorError` when it is damaged.
    """
    if not weights.parts:
        return sha256_of_folder(folder) == weights.sha256
    with _opened(folder) as shards, ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        if shards.keys() != weights.parts.keys():
            return False
        hashes = threads.map(lambda name: _sha256_of_tensor(name, shards[name].get_tensor(name)), shards)
        return all(weights.parts[name] == digest for name, digest in zip(shards, hashes, strict=True))


def sha256_of_state(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    return _sha256((name, state[name]) for name in sorted(state))


@contextmanager
def _opened(folder: Path) -> Iterator[dict[str, Any]]:
    """The open safetensors file of each tensor of a folder; a later shard replaces a tensor of the same name."""
    with ExitStack() as opened:
        shards: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            shard = opened.enter_context(safe_open(path, framework="pt"))
            shards.update(dict.fromkeys(shard.keys(), shard))
        yield shards


def _hash_on_device(model: Any, written: Any, parts: bool) -> WeightHash:
    """Hash a model on a GPU. Copies run in a stream of their own, after the event `written`."""
    stream = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
    stream.wait_event(written)
    with torch.cuda.stream(stream), torch.inference_mode():
        state = saved_state(model)
        return hash_state(state) if parts else WeightHash(sha256_of_state(state), {})


def _sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(_header(name, tensor))
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _sha256_of_tensor(name: str, tensor: Tensor) -> bytes:
    return hashlib.sha256(_header(name, tensor) + hashlib.sha256(_bytes(tensor)).digest()).digest()


def _header(name: str, tensor: Tensor) -> bytes:
    return f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode()


def _bytes(tensor: Tensor) -> Any:
    """The tensor's bytes in host memory, without a copy where it is there already."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
