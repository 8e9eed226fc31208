"""Gives access to a model's file sizes, small text files and safetensors headers, without its weights.

A local folder and a Hub repository have the same interface, so that metadata is read by the same code. Of weight files
only the headers are read; on the Hub with HTTP range requests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from core.errors import ModelError
from core.models import hub
from core.models.references import ModelReference
from core.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import SafetensorsFileMetadata


_AGAIN = "Download or export it again."


class TensorFacts(NamedTuple):
    """Shape and safetensors dtype ("BF16", "F32", …) of one tensor."""

    shape: tuple[int, ...]
    dtype: str


class WeightFacts(NamedTuple):
    """All tensors of a model by name, and their size on disk."""

    tensors: dict[str, TensorFacts]
    size_bytes: int


class ModelFiles(Protocol):
    """The files of one model.

    Attributes:
        sizes: size in bytes of each top-level file by name.
        license: as the source states it, None when it states none.
        gated: whether the license must be accepted on the Hub.
        cached: whether the weights are already on this machine.
    """

    sizes: dict[str, int]
    license: str | None
    gated: bool
    cached: bool

    def text(self, name: str) -> str:
        """Content of a small text file that is in `sizes`."""
        ...

    def header(self, name: str) -> SafetensorsFileMetadata:
        """The header of a safetensors file that is in `sizes`."""
        ...


class FolderFiles:
    """A model in a local folder."""

    gated = False
    cached = True

    def __init__(self, folder: Path, license_name: str | None = None) -> None:
        self._folder = folder
        self.license = license_name
        self.sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}

    def text(self, name: str) -> str:
        return _decoded((self._folder / name).read_bytes(), name, str(self._folder))

    def header(self, name: str) -> SafetensorsFileMetadata:
        from huggingface_hub import parse_local_safetensors_file_metadata
        from huggingface_hub.errors import SafetensorsParsingError

        try:
            header = parse_local_safetensors_file_metadata(self._folder / name)
            with (self._folder / name).open("rb") as file:
                start = 8 + int.from_bytes(file.read(8), "little")  # the length field and the header
        except (SafetensorsParsingError, OSError) as error:
            raise ModelError(
                f"{name} in {self._folder} is not a readable safetensors file.",
                "Copy or export it again.",
                code="damaged-safetensors",
            ) from error
        if self.sizes[name] < start + _data_bytes(header):
            raise _truncated(name, str(self._folder))
        return header


class HubFiles:
    """A model on the Hub at one commit."""

    def __init__(self, ref: ModelReference, settings: Settings) -> None:
        self._ref, self._settings = ref, settings
        repository = hub.describe(ref, settings)
        self._commit = repository.commit
        self.sizes = repository.files
        self.license = repository.license
        self.gated = repository.gated
        pinned = ModelReference("hub", ref.source, repository.commit)
        self.cached = hub.cached(pinned, settings) is not None

    def text(self, name: str) -> str:
        path = hub.download_small(self._ref, self._commit, name, self._settings)
        return _decoded(path.read_bytes(), name, str(self._ref))

    def header(self, name: str) -> SafetensorsFileMetadata:
        return hub.read_header(self._ref, self._commit, name, self._settings)


def open_files(ref: ModelReference, settings: Settings) -> ModelFiles:
    """The files of a Hub model or a folder; the cached copy if the Hub is unreachable.

    Raises:
        ModelError: the model does not exist, is gated, or is neither reachable nor cached.
    """
    if ref.kind == "folder":
        return FolderFiles(ref.folder)
    try:
        return HubFiles(ref, settings)
    except hub.HubUnreachable:
        folder = hub.cached(ref, settings)
        if folder is None:
            raise
        return FolderFiles(folder)


def read_json(files: ModelFiles, name: str, source: str) -> dict[str, Any]:
    """The JSON object in one of a model's files, {} without the file; raises `ModelError` if it is malformed."""
    if name not in files.sizes:
        return {}
    try:
        value = json.loads(files.text(name))
    except ValueError as error:
        message = f"{name} of {source} is not valid JSON: {error}."
        raise ModelError(message, _AGAIN, code="malformed-json") from error
    if not isinstance(value, dict):
        raise ModelError(f"{name} of {source} is not a JSON object.", _AGAIN, code="malformed-json")
    return value


def read_weights(files: ModelFiles, stem: str, source: str) -> WeightFacts:
    """Tensor facts of `stem.safetensors`, or of the shards that its index names.

    Raises:
        ModelError: no safetensors weights (pickled weights are refused), or a file is missing, truncated or unreadable.
    """
    tensors: dict[str, TensorFacts] = {}
    size_bytes = 0
    for name in _weight_names(files, stem, source):
        header = files.header(name)
        if files.sizes[name] < _data_bytes(header):
            raise _truncated(name, source)
        size_bytes += files.sizes[name]
        tensors.update({key: TensorFacts(tuple(info.shape), info.dtype) for key, info in header.tensors.items()})
    return WeightFacts(tensors, size_bytes)


def _data_bytes(header: SafetensorsFileMetadata) -> int:
    """Total size of the tensors according to the header."""
    return max((info.data_offsets[1] for info in header.tensors.values()), default=0)


def _truncated(name: str, source: str) -> ModelError:
    return ModelError(f"{name} of {source} is truncated.", _AGAIN, code="weights-truncated")


def _weight_names(files: ModelFiles, stem: str, source: str) -> list[str]:
    single, index = f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    if single in files.sizes:
        return [single]
    if index not in files.sizes:
        raise _no_safetensors(files, source)
    weight_map = read_json(files, index, source).get("weight_map")
    names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
    missing = [name for name in names if name not in files.sizes]
    if missing or not names:
        raise ModelError(
            f"{source} lacks {missing[0] if missing else 'the weight files'} that its index names.",
            "Download or upload the model again.",
            code="shard-missing",
        )
    return names


def _no_safetensors(files: ModelFiles, source: str) -> ModelError:
    pickled = sorted(name for name in files.sizes if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    hint = "Choose a model with safetensors weights, or convert it and use the converted folder."
    if pickled:
        message = f"{source} has only pickled weights ({pickled[0]}), which can run code when they are loaded."
        return ModelError(message, hint, code="pickled-weights")
    return ModelError(f"{source} has no safetensors weights.", hint, code="no-safetensors")


def _decoded(data: bytes, name: str, source: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{name} of {source} is not UTF-8 text.", _AGAIN, code="not-utf8") from error
