"""Gives access to a model's file sizes, small text files and safetensors headers, without its weights.

A local folder and a Hub repository have the same interface, so that metadata is read by the same code. Of weight files
only the headers are read; on the Hub with HTTP range requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from core.errors import ModelError
from core.models import hub
from core.models.header_check import checked_header
from core.models.pickled_weights import list_tensors
from core.models.references import ModelReference
from core.models.weight_files import WeightFiles, choose_weight_files
from core.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import SafetensorsFileMetadata


_AGAIN = "Download or export it again."


class TensorFacts(NamedTuple):
    """Shape and safetensors dtype ("BF16", "F32", …) of one tensor."""

    shape: tuple[int, ...]
    dtype: str


class WeightFacts(NamedTuple):
    """All tensors of a model.

    Attributes:
        tensors: by name, as saved.
        size_bytes: of the files.
        files: name of each tensor's safetensors file; empty for pickled and for recorded weights.
        pickled: whether the weights are pickles, which are converted before they are loaded.
    """

    tensors: dict[str, TensorFacts]
    size_bytes: int
    files: Mapping[str, str] = MappingProxyType({})
    pickled: bool = False


class ModelFiles(Protocol):
    """The files of one model.

    Attributes:
        sizes: size in bytes of each top-level file by name.
        license: as the source states it, None when it states none.
        gated: whether the license must be accepted on the Hub.
        cached: whether the weights are already on this machine.
        conversion: revision and commit of the Hub's pull request that the weights come from, "" without one.
    """

    sizes: dict[str, int]
    license: str | None
    gated: bool
    cached: bool
    conversion: str

    def text(self, name: str) -> str:
        """Content of a small text file that is in `sizes`."""
        ...

    def header(self, name: str) -> SafetensorsFileMetadata:
        """The header of a safetensors file that is in `sizes`."""
        ...

    def read(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes of a file that is in `sizes`, from `start`."""
        ...

    def local_texts(self) -> Path:
        """The folder with the text files, which are downloaded if necessary."""
        ...

    def local_weights(self, names: Sequence[str]) -> list[Path]:
        """The weight files of these names, which are downloaded if necessary."""
        ...


class FolderFiles:
    """A model in a local folder."""

    gated = False
    cached = True

    def __init__(
        self, folder: Path, license_name: str | None = None, weights: Path | None = None, conversion: str = ""
    ) -> None:
        self._folder = folder
        self.license = license_name
        self.conversion = conversion
        folders = (folder, weights) if weights else (folder,)
        self._paths = {path.name: path for place in reversed(folders) for path in place.iterdir() if path.is_file()}
        self.sizes = {name: path.stat().st_size for name, path in self._paths.items()}

    def text(self, name: str) -> str:
        return _decoded(self._paths[name].read_bytes(), name, str(self._folder))

    def read(self, name: str, start: int, length: int) -> bytes:
        with self._paths[name].open("rb") as file:
            file.seek(start)
            return file.read(length)

    def local_texts(self) -> Path:
        return self._folder

    def local_weights(self, names: Sequence[str]) -> list[Path]:
        return [self._paths[name] for name in names]

    def header(self, name: str) -> SafetensorsFileMetadata:
        from huggingface_hub import parse_local_safetensors_file_metadata

        path, folder = self._paths[name], str(self._folder)
        try:
            header = checked_header(lambda: parse_local_safetensors_file_metadata(path), name, folder, _AGAIN)
            with self._paths[name].open("rb") as file:
                start = 8 + int.from_bytes(file.read(8), "little")  # the length field and the header
        except OSError as error:
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
        self.conversion = ""
        self._weights_commit = repository.commit
        if _has_only_pickles(self.sizes):
            self._use_conversion(repository)
        self.cached = self._cached_weights() is not None

    def _use_conversion(self, repository: hub.Repository) -> None:
        """Take the weights from the Hub's conversion to safetensors, if there is one."""
        found = hub.find_conversion(self._ref, repository, self._settings)
        if found is None:
            return
        weights = {name: size for name, size in found.files.items() if ".safetensors" in name}
        self.sizes = {**self.sizes, **weights}
        self.conversion, self._weights_commit = f"{found.revision} at {found.commit}", found.commit
        remember_conversion(self._ref, self._commit, self.conversion, self._settings)

    def text(self, name: str) -> str:
        path = hub.download_small(self._ref, self._commit_of(name), name, self._settings)
        return _decoded(path.read_bytes(), name, str(self._ref))

    def header(self, name: str) -> SafetensorsFileMetadata:
        return hub.read_header(self._ref, self._weights_commit, name, self._settings)

    def read(self, name: str, start: int, length: int) -> bytes:
        return hub.read_range(self._ref, self._commit_of(name), name, start, length, self._settings)

    def local_texts(self) -> Path:
        return hub.fetch(self._ref, self._settings, weights=False)

    def local_weights(self, names: Sequence[str]) -> list[Path]:
        folder = self._cached_weights()
        if folder is None or not all((folder / name).is_file() for name in names):
            source = self._weights_ref() if self.conversion else self._ref
            folder = hub.fetch(source, self._settings, weights=names)
        return [folder / name for name in names]

    def _cached_weights(self) -> Path | None:
        return hub.cached(self._weights_ref(), self._settings)

    def _weights_ref(self) -> ModelReference:
        return ModelReference("hub", self._ref.source, self._weights_commit)

    def _commit_of(self, name: str) -> str:
        return self._weights_commit if ".safetensors" in name else self._commit


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
        if files := _cached_files(ref, settings):
            return files
        raise


def _cached_files(ref: ModelReference, settings: Settings) -> FolderFiles | None:
    """The files of a Hub model that are on this machine; None if the weights are not."""
    texts = hub.cached_texts(ref, settings)
    conversion = recall_conversion(ref, texts.name, settings) if texts else ""
    if texts and conversion:
        weights = hub.cached(ModelReference("hub", ref.source, conversion.rpartition(" ")[2]), settings)
        if weights is not None:
            return FolderFiles(texts, weights=weights, conversion=conversion)
    folder = hub.cached(ref, settings)
    return FolderFiles(folder) if folder else None


def remember_conversion(ref: ModelReference, commit: str, conversion: str, settings: Settings) -> None:
    """Note which conversion belongs to a commit of a model, for work without the Hub."""
    path = _conversion_note(ref, commit, settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(conversion, encoding="utf-8")


def recall_conversion(ref: ModelReference, commit: str, settings: Settings) -> str:
    """The conversion that `remember_conversion` noted; "" without a note."""
    path = _conversion_note(ref, commit, settings)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _conversion_note(ref: ModelReference, commit: str, settings: Settings) -> Path:
    return settings.home / "conversions" / f"{ref.source.replace('/', '--')}@{commit}.txt"


def _has_only_pickles(sizes: dict[str, int]) -> bool:
    """Whether a repository has pickled weights and no safetensors that are a transformers model."""
    pickles = any(name.startswith(("pytorch_model", "adapter_model")) and ".bin" in name for name in sizes)
    return pickles and not any(name.endswith(".safetensors") and not name.startswith("consolidated") for name in sizes)


def read_json(files: ModelFiles, name: str, source: str) -> dict[str, Any]:
    """The JSON object in one of a model's files, {} without the file; raises `ModelError` if it is malformed."""
    if name not in files.sizes:
        return {}
    try:
        value = json.loads(files.text(name))
    except (ValueError, RecursionError) as error:
        message = f"{name} of {source} is not valid JSON: {error}."
        raise ModelError(message, _AGAIN, code="malformed-json") from error
    if not isinstance(value, dict):
        raise ModelError(f"{name} of {source} is not a JSON object.", _AGAIN, code="malformed-json")
    return value


def find_weights(files: ModelFiles, stem: str, source: str) -> WeightFiles:
    """The files that hold the weights; `stem` and errors as for `choose_weight_files`."""
    return choose_weight_files(files.sizes, stem, lambda name: read_json(files, name, source), source)


def read_weights(files: ModelFiles, stem: str, source: str, settings: Settings) -> WeightFacts:
    """Facts of all tensors of a model ("model") or of an adapter ("adapter_model").

    A separate process lists the tensors of pickles that are on this machine; those of pickles on the Hub are not known
    before they are downloaded.

    Raises:
        ModelError: there are no weights, or a file is missing, truncated, refused or unreadable.
    """
    chosen = find_weights(files, stem, source)
    if chosen.format == "pickle":
        return _read_pickles(files, chosen, source, settings)
    tensors: dict[str, TensorFacts] = {}
    places: dict[str, str] = {}
    for name in chosen.names:
        header = files.header(name)
        if files.sizes[name] < _data_bytes(header):
            raise _truncated(name, source)
        tensors.update({key: TensorFacts(tuple(info.shape), info.dtype) for key, info in header.tensors.items()})
        places.update(dict.fromkeys(header.tensors, name))
    return WeightFacts(tensors, sum(files.sizes[name] for name in chosen.names), places)


def _read_pickles(files: ModelFiles, chosen: WeightFiles, source: str, settings: Settings) -> WeightFacts:
    size_bytes = sum(files.sizes[name] for name in chosen.names)
    if not files.cached:
        return WeightFacts({}, size_bytes, pickled=True)
    listed = list_tensors(files.local_weights(chosen.names), source, settings)
    return WeightFacts({name: TensorFacts(*facts) for name, facts in listed.items()}, size_bytes, pickled=True)


def read_sample(files: ModelFiles, facts: WeightFacts, tensor: str, length: int) -> bytes:
    """Up to `length` bytes from the middle of a tensor in a safetensors file."""
    name = facts.files[tensor]
    start, end = files.header(name).tensors[tensor].data_offsets
    first = 8 + int.from_bytes(files.read(name, 0, 8), "little") + start
    middle = max(0, (end - start - length) // 2)
    return files.read(name, first + middle, min(length, end - start))


def _data_bytes(header: SafetensorsFileMetadata) -> int:
    """Total size of the tensors according to the header."""
    return max((info.data_offsets[1] for info in header.tensors.values()), default=0)


def _truncated(name: str, source: str) -> ModelError:
    return ModelError(f"{name} of {source} is truncated.", _AGAIN, code="weights-truncated")


def _decoded(data: bytes, name: str, source: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{name} of {source} is not UTF-8 text.", _AGAIN, code="not-utf8") from error
