"""Makes a folder that holds exactly the files which transformers has to read.

transformers chooses files by itself: a single file before an index, and an adapter beside whole weights is applied.
A folder with such files is therefore read through a folder of links. It holds the text files and the chosen weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from core.settings import Settings

_TEXTS = (".json", ".jinja", ".txt", ".model")


def make_view(texts: Path, weights: Sequence[Path], stem: str, settings: Settings) -> Path:
    """A folder with links to a model's text files and to its safetensors weights.

    Args:
        texts: folder with the configuration and the tokenizer.
        weights: the safetensors files, which may be elsewhere.
        stem: "model" for a whole model, "adapter_model" for an adapter.
        settings: of this machine; views are stored under `settings.home`.
    """
    links = {
        path.name: path.resolve()
        for path in sorted(texts.iterdir())
        if path.is_file() and path.suffix in _TEXTS and not _is_left_out(path.name, stem)
    }
    single = len(weights) == 1
    links |= {f"{stem}.safetensors" if single else path.name: path.resolve() for path in weights}
    facts = [(name, str(path), path.stat().st_size, path.stat().st_mtime_ns) for name, path in sorted(links.items())]
    folder = settings.home / "views" / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    if folder.is_dir():
        return folder
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name, path in links.items():
        (draft / name).symlink_to(path)
    if not single:
        (draft / f"{stem}.safetensors.index.json").write_text(_index_of(weights), encoding="utf-8")
    try:
        draft.rename(folder)
    except OSError:  # another process made it meanwhile
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _is_left_out(name: str, stem: str) -> bool:
    return (stem == "model" and name == "adapter_config.json") or name.endswith(".index.json")


def _index_of(weights: Sequence[Path]) -> str:
    from safetensors import safe_open

    weight_map = {}
    for path in weights:
        with safe_open(path, framework="pt") as file:
            weight_map.update(dict.fromkeys(file.keys(), path.name))
    total = sum(path.stat().st_size for path in weights)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map})
