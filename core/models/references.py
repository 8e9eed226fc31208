"""Parses model references: a Hub id, `id@revision`, a local folder, `base+lora` or `demo/NAME`.

Parsing uses the text, this machine's folders and the demo's adapters, never the network. Whether a Hub id exists is
checked when its metadata is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import ModelError
from core.settings import ASSETS, Settings, expanded, is_folder

Kind = Literal["hub", "folder", "demo"]

DEMO_PREFIX = "demo/"
DEMO_BASE = "base"
DEMO_ADAPTERS = ASSETS / "demo" / "adapters"

_FORMS = "Write a Hub id (owner/name or owner/name@revision), a local folder, base+lora or demo/NAME."
_HUB_ID = re.compile(r"(?P<id>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>\w[\w./-]*))?")


@dataclass(frozen=True)
class ModelReference:
    """A reference to a model; `str()` returns its text.

    Attributes:
        kind: where the model is.
        source: Hub id, folder as written, or the demo model's name.
        revision: branch, tag or commit of a Hub id; None means the main branch.
        adapter: a LoRA adapter to merge into the model.
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
    def identity(self) -> str:
        """A text that is equal for all spellings of one model: upper case, `@main`, links, a trailing slash."""
        if self.kind == "folder":
            own = str(self.folder.resolve())
        else:
            revision = "" if self.revision in (None, "main") else f"@{self.revision}"
            own = f"{self.kind}:{self.source.casefold()}{revision}"
        return f"{own}+{self.adapter.identity}" if self.adapter else own

    @property
    def folder(self) -> Path:
        """The local folder; only for kind "folder"."""
        return expanded(self.source)


def parse_reference(text: str, settings: Settings) -> ModelReference:
    """Parse a model reference.

    An existing relative folder takes precedence over a Hub id of the same form, as in transformers. On a Space local
    folders are ignored.

    Raises:
        ModelError: the text has none of the forms, or names a folder that is missing or not allowed, or an unknown demo
            model (the hint lists the known ones).
    """
    text = text.strip()
    if not text:
        raise ModelError("The model's name is empty.", _FORMS, code="no-model-named")
    if "+" in text and not _is_local_folder(text, settings):
        return _parse_with_adapter(text, settings)
    return _parse_single(text, settings)


def demo_names(adapters: Path = DEMO_ADAPTERS) -> list[str]:
    """Names of the demo models: the base and each adapter folder."""
    found = sorted(path.parent.name for path in adapters.glob("*/adapter_config.json"))
    return [DEMO_BASE, *found]


def _parse_with_adapter(text: str, settings: Settings) -> ModelReference:
    parts = [part.strip() for part in text.split("+")]
    if len(parts) != 2 or not all(parts):
        raise ModelError(
            f"'{text}' is not of the form base+lora.",
            "Name one base and one adapter, separated by a single '+'.",
            code="invalid-reference",
        )
    base, adapter = (_parse_single(part, settings) for part in parts)
    if adapter.kind == "demo" or (base.kind == "demo" and base.source != DEMO_BASE):
        raise ModelError(
            f"'{text}' combines a demo model with an adapter.",
            "Demo models already have an adapter; only demo/base accepts another one.",
            code="adapter-on-demo-model",
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
        raise ModelError(f"'{text}' is not a model reference.", _FORMS, code="invalid-reference")
    return ModelReference("hub", match["id"], match["revision"])


def _parse_demo(name: str) -> ModelReference:
    known = demo_names()
    if name not in known:
        raise ModelError(
            f"There is no demo model '{name}'.",
            f"Use one of {', '.join(DEMO_PREFIX + item for item in known)}.",
            code="unknown-demo-model",
        )
    return ModelReference("demo", name)


def _parse_folder(text: str, settings: Settings) -> ModelReference:
    if settings.on_space:
        message = f"'{text}' is a local path, which a Space does not open."
        raise ModelError(message, "Use a Hub id instead.", code="local-path-refused")
    if not is_folder(expanded(text)):
        hint = "Check the path, or write a Hub id as owner/name."
        raise ModelError(f"There is no folder '{text}'.", hint, code="folder-not-found")
    return ModelReference("folder", text)


def _is_local_folder(text: str, settings: Settings) -> bool:
    return not settings.on_space and is_folder(expanded(text))
