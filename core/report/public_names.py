"""Names of models in texts that are published: Hub ids, and folder names in place of paths of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from core.models.demo_base import HUB_ID
from core.models.references import DEMO_PREFIX

_HUB_ID = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
_PATH_STARTS = ("/", "./", "../", "~", "\\")


def hub_ids(references: Iterable[str]) -> list[str]:
    """The Hub ids that model references name, without revisions and duplicates.

    `base+adapter` names two models. Local folders have no Hub id; a demo model has that of its base.

    Args:
        references: of models, as a spec or a recipe writes them.
    """
    ids = (_hub_id(part) for reference in references for part in _parts(reference))
    return list(dict.fromkeys(found for found in ids if found))


def loadable_elsewhere(references: Iterable[str]) -> list[str]:
    """The references that do not name a local folder, as they are written."""
    return [reference for reference in references if not any(map(_is_local, _parts(reference)))]


def without_local_paths(text: str, references: Iterable[str]) -> str:
    """`text` with each local path replaced by its last part, or by as many parts as keep two models distinct.

    Args:
        text: of a card.
        references: of models and files; only those that are local paths are replaced.
    """
    parts = (part for reference in references for part in _parts(reference))
    paths = dict.fromkeys(part for part in parts if _is_local(part) and len(Path(part).parts) > 1)
    names = _short_names(list(paths))
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text


def _short_names(paths: list[str]) -> dict[str, str]:
    longest = max((len(Path(path).parts) for path in paths), default=0)
    for length in range(1, longest + 1):
        names = {path: "/".join(Path(path).parts[-length:]) for path in paths}
        if len(set(names.values())) == len(paths):
            return names
    return {}


def _parts(reference: str) -> Iterator[str]:
    """The base and the adapter of `base+adapter`; other references as they are."""
    yield from [reference] if _is_folder(reference) else (part.strip() for part in reference.split("+"))


def _hub_id(part: str) -> str | None:
    if part.startswith(DEMO_PREFIX):
        return HUB_ID
    name = part.split("@", 1)[0]
    return name if not _is_local(part) and _HUB_ID.fullmatch(name) else None


def _is_local(part: str) -> bool:
    return part.startswith(_PATH_STARTS) or _is_folder(part)


def _is_folder(text: str) -> bool:
    return Path(text).expanduser().is_dir()
