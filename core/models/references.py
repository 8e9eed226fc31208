"""How a person names a model: a Hub id, `id@revision`, a local folder, `base+lora` or `demo/NAME`.

Parsing looks at the text, at this machine's folders and at the demo's adapters, never at the network: whether a Hub
id exists is found out when its metadata is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import ModelError
from core.settings import ASSETS, Settings

Kind = Literal["hub", "folder", "demo"]

DEMO_PREFIX = "demo/"
DEMO_BASE = "base"
DEMO_ADAPTERS = ASSETS / "demo" / "adapters"

_FORMS = "Write a Hub id (owner/name or owner/name@revision), a local folder, base+lora or demo/NAME."
_HUB_ID = re.compile(r"(?P<id>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>\w[\w./-]*))?")


@dataclass(frozen=True)
class ModelReference:
    """A model as it was named; `str()` gives the text back.

    Attributes:
        source: Hub id, folder as written, or the demo model's name.
        revision: branch, tag or commit of a Hub id; None means its main branch.
        adapter: a LoRA adapter to be merged into the model.
    """

    kind: Kind
    source: str
    revision: str | None = None
    adapter: ModelReference | None = None

    def __str__(self) -> str:
        text = f"{DEMO_PREFIX}{self.source}" if self.kind == "demo" else self.source
        text += f"@{self.revision}" if self.revision else ""
        return f"{text}+{self.adapter}" if self.adapter else text

    @property
    def base(self) -> ModelReference:
        """The model without its adapter."""
        return ModelReference(self.kind, self.source, self.revision)

    @property
    def folder(self) -> Path:
        """The local folder that is meant; only for kind "folder"."""
        return Path(self.source).expanduser()


def parse_reference(text: str, settings: Settings) -> ModelReference:
    """Read a model reference.

    A relative folder that exists wins over a Hub id of the same form, as it does in transformers; on a Space the
    disk is never consulted.

    Raises:
        ModelError: the text has none of the forms, names a folder that is missing or not allowed, or an unknown
            demo model (the message lists those that exist).
    """
    text = text.strip()
    if not text:
        raise ModelError("No model was named.", _FORMS)
    if "+" in text and not _is_local_folder(text, settings):
        return _parse_with_adapter(text, settings)
    return _parse_single(text, settings)


def demo_names(adapters: Path = DEMO_ADAPTERS) -> list[str]:
    """Names that may follow `demo/`: the plain base and each adapter folder."""
    found = sorted(path.parent.name for path in adapters.glob("*/adapter_config.json"))
    return [DEMO_BASE, *found]


def _parse_with_adapter(text: str, settings: Settings) -> ModelReference:
    parts = [part.strip() for part in text.split("+")]
    if len(parts) != 2 or not all(parts):
        raise ModelError(
            f"'{text}' is not of the form base+lora.", "Name one base and one adapter around a single '+'."
        )
    base, adapter = (_parse_single(part, settings) for part in parts)
    if adapter.kind == "demo" or (base.kind == "demo" and base.source != DEMO_BASE):
        raise ModelError(
            f"'{text}' puts an adapter where a demo model is.",
            "Demo models carry their adapter already; only demo/base takes another one.",
        )
    return ModelReference(base.kind, base.source, base.revision, adapter)


def _parse_single(text: str, settings: Settings) -> ModelReference:
    if text.startswith(DEMO_PREFIX):
        return _parse_demo(text.removeprefix(DEMO_PREFIX))
    if text.startswith(("/", "./", "../", "~", "\\")) or text in (".", ".."):
        return _parse_folder(text, settings)
    if _is_local_folder(text, settings):
        return ModelReference("folder", text)
    match = _HUB_ID.fullmatch(text)
    if match is None or ".." in text or "--" in match["id"]:
        raise ModelError(f"'{text}' does not name a model.", _FORMS)
    return ModelReference("hub", match["id"], match["revision"])


def _parse_demo(name: str) -> ModelReference:
    known = demo_names()
    if name not in known:
        raise ModelError(
            f"There is no demo model '{name}'.", f"Use one of {', '.join(DEMO_PREFIX + item for item in known)}."
        )
    return ModelReference("demo", name)


def _parse_folder(text: str, settings: Settings) -> ModelReference:
    if settings.on_space:
        raise ModelError(f"'{text}' is a local path, which a Space does not open.", "Use a Hub id instead.")
    if not Path(text).expanduser().is_dir():
        raise ModelError(f"There is no folder '{text}'.", "Check the path, or write a Hub id as owner/name.")
    return ModelReference("folder", text)


def _is_local_folder(text: str, settings: Settings) -> bool:
    return not settings.on_space and Path(text).expanduser().is_dir()
