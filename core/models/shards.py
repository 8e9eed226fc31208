"""Reads the tensors of a checkpoint from its safetensors files, in several threads, without building its model.

This works where each saved tensor is a parameter of the class: under a known name, in the same shape, without a
conversion. Other checkpoints are loaded by transformers (`core.models.loading`): experts that it fuses, an output layer
saved beside a tied embedding, adapters.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.models.class_tensors import unconverted_names

if TYPE_CHECKING:
    from torch import Tensor

_SINGLE = "model.safetensors"
_FORMATS = ("F32", "BF16", "F16")
_MOST_THREADS = 8
_AHEAD = 2
"""Tensors read ahead, per thread."""
_AHEAD_ON_GPU = 4
"""Tensors read ahead into a GPU's memory, which the memory plan has no part for."""


class ShardState(Mapping[str, "Tensor"]):
    """The tensors of a checkpoint by the names of its class, in the format in which they are saved.

    Reading them in order reads ahead: while one tensor is used, threads read the next ones. Each is a copy in memory,
    so the files may change afterwards. Use it as a context manager, which closes the files.

    Args:
        files: name of a tensor in the class -> its file and its name there, in the order in which they will be read.
        device: where the tensors are read to.
    """

    def __init__(self, files: Mapping[str, tuple[Path, str]], device: str = "cpu") -> None:
        from safetensors import safe_open

        self._files = files
        self._device = device
        self._opened = ExitStack()
        paths = {path for path, _ in files.values()}
        self._shards: dict[Path, Any] = {
            path: self._opened.enter_context(safe_open(path, framework="pt", device=device)) for path in sorted(paths)
        }
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._threads = self._opened.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="shards"))
        self._waiting: dict[str, Future[Tensor]] = {}
        self._next, self._window = deque(files), threads * _AHEAD if device == "cpu" else _AHEAD_ON_GPU

    def __enter__(self) -> ShardState:
        return self

    def __exit__(self, *error: object) -> None:
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
        self._opened.close()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._files:
            raise KeyError(name)
        if self._next and self._next[0] == name:
            self._read_ahead()
        known = self._waiting.pop(name, None)
        if known is not None:
            self._read_ahead()
        return self._read(name) if known is None else known.result()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _read_ahead(self) -> None:
        while self._next and len(self._waiting) < self._window:
            name = self._next.popleft()
            self._waiting[name] = self._threads.submit(self._read, name)

    def _read(self, name: str) -> Tensor:
        path, saved = self._files[name]
        tensor: Tensor = self._shards[path].get_tensor(saved)
        return tensor.clone() if self._device == "cpu" else tensor  # on a processor it is a view of the file


def open_shards(folder: Path, device: str = "cpu") -> ShardState | None:
    """The tensors of a model's folder; None where transformers has to convert some of them, or to report an error.

    Args:
        folder: as transformers reads it (`core.models.loading.locate`).
        device: where the tensors are read to.
    """
    from safetensors import SafetensorError

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        saved = _saved_tensors(folder)
    except (OSError, ValueError, SafetensorError):
        return None
    if config.get("quantization_config"):
        return None
    shapes = {name: shape for name, (_, shape) in saved.items()}
    names = unconverted_names(shapes, config)
    if names is None:
        return None
    return ShardState({name: (saved[source][0], source) for name, source in names.items()}, device)


def _saved_tensors(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """File and shape of each tensor; {} where one has a format that transformers would cast.

    Raises:
        OSError: a file cannot be read; `safetensors.SafetensorError` when it is damaged.
    """
    from safetensors import safe_open

    index = folder / f"{_SINGLE}.index.json"
    names = [_SINGLE]
    if not (folder / _SINGLE).exists():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for name in names:
        with safe_open(folder / name, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                part = file.get_slice(key)
                if part.get_dtype() not in _FORMATS:
                    return {}
                found[key] = (folder / name, tuple(part.get_shape()))
    return found
