"""Decides which of a model's files hold its weights.

Repositories often hold the weights several times: shards with an index, an older single file, the author's own format
(`consolidated.safetensors`, `original/`), GGUF, pickles. An index decides; without one the single file, then a complete
set of numbered shards. Pickles count only if there are no safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from core.errors import ModelError

WeightFormat = Literal["safetensors", "pickle"]

_STEMS: dict[str, dict[WeightFormat, str]] = {
    "model": {"safetensors": "model.safetensors", "pickle": "pytorch_model.bin"},
    "adapter_model": {"safetensors": "adapter_model.safetensors", "pickle": "adapter_model.bin"},
}
_NOT_TRANSFORMERS = ("consolidated", "adapter")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.safetensors|\.bin)")
_HINT = "Choose a model with safetensors weights, or convert it and use the converted folder."


class WeightFiles(NamedTuple):
    """The files that hold a model's weights.

    Attributes:
        format: safetensors, or pickles, which are never read in this process.
        names: of the files, sorted.
        index_name: name of the index that lists them, None without one.
    """

    format: WeightFormat
    names: tuple[str, ...]
    index_name: str | None = None


def choose_weight_files(
    sizes: Mapping[str, int], stem: str, read_index: Callable[[str], dict[str, Any]], source: str
) -> WeightFiles:
    """Choose among a model's top-level files.

    Args:
        sizes: size of each file by name.
        stem: "model" for a whole model, "adapter_model" for a LoRA adapter.
        read_index: returns the content of an index.
        source: the model, for messages.

    Raises:
        ModelError: there are no weights (`no-safetensors`), or an index names files that are missing (`shard-missing`).
    """
    incomplete: list[str] = []
    formats: tuple[WeightFormat, ...] = ("safetensors", "pickle")
    for kind in formats:
        single = _STEMS[stem][kind]
        for index in _indexes(sizes, single):
            names = _indexed(read_index(index))
            missing = [name for name in names if name not in sizes]
            if names and not missing:
                return WeightFiles(kind, names, index)
            incomplete.append(missing[0] if missing else "the weight files")
        if single in sizes:
            return WeightFiles(kind, (single,))
        if shards := _numbered(sizes, single):
            if stem == "adapter_model":
                message = f"{source} has its adapter in {len(shards)} files, which peft does not read."
                raise ModelError(message, "Save the adapter again with peft.", code="adapter-sharded")
            return WeightFiles(kind, shards)
    if incomplete and "/" in incomplete[0]:
        message = f"The index of {source} names {incomplete[0]}: shards in subfolders are not read."
        raise ModelError(message, "Move the shards beside the index, and name them so.", code="shard-missing")
    if incomplete:
        message = f"{source} lacks {incomplete[0]} that its index names."
        raise ModelError(message, "Download or upload the model again.", code="shard-missing")
    raise ModelError(f"{source} has no safetensors weights.", _HINT, code="no-safetensors")


def is_plain(files: WeightFiles, stem: str, sizes: Mapping[str, int]) -> bool:
    """Whether transformers (or peft) reads exactly these files from a folder with the files `sizes`."""
    single = f"{stem}.safetensors"
    if stem == "model" and "adapter_config.json" in sizes:
        return False
    if files.index_name is None:
        return files.names == (single,)
    return files.index_name == f"{single}.index.json" and single not in sizes


def _indexes(sizes: Mapping[str, int], single: str) -> list[str]:
    """Indexes of the format of `single`, its own one first."""
    own, suffix = f"{single}.index.json", f"{single[single.rindex('.') :]}.index.json"
    found = {own} & sizes.keys()
    others = {name for name in sizes if name.endswith(suffix) and not name.startswith(_NOT_TRANSFORMERS)}
    return [*found, *sorted(others - found if single.startswith(("model", "pytorch")) else set())]


def _indexed(index: dict[str, Any]) -> tuple[str, ...]:
    weight_map = index.get("weight_map")
    return tuple(sorted({str(name) for name in weight_map.values()})) if isinstance(weight_map, dict) else ()


def _numbered(sizes: Mapping[str, int], single: str) -> tuple[str, ...]:
    """A complete set of shards that no index lists; () if there is none."""
    stem, _, suffix = single.rpartition(".")
    found = [match for name in sizes if (match := _SHARD.fullmatch(name))]
    shards = [match for match in found if (match["stem"], match["suffix"]) == (stem, f".{suffix}")]
    for count in sorted({match["count"] for match in shards}):
        names = sorted(match.string for match in shards if match["count"] == count)
        if len(names) == int(count):
            return tuple(names)
    return ()
