"""Reads a spec file's text into a frozen spec of any kind; each mistake is listed with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from core.contracts.data_spec import FrozenSpec
from core.contracts.removed import REMOVED_KEYS
from core.contracts.safe_yaml import load_yaml
from core.contracts.validation import STORED
from core.errors import SpecError, SpecProblem, YamlError

AnyKind = TypeVar("AnyKind", bound=FrozenSpec)


def read_spec_text(path: Path) -> str:
    """A spec file's text; raises `SpecError` when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"The spec file {path} cannot be read: {error}."
        raise SpecError(message, "Check the path.", code="unreadable-spec") from error


def parse_mapping(text: str) -> dict[str, Any]:
    """The keys of a spec's YAML text, without validation; raises `SpecError`."""
    try:
        data = load_yaml(text)
    except YamlError as error:
        message = f"The spec is not valid YAML: {error.message}"
        raise SpecError(message, error.hint, code="malformed-yaml") from error
    if not isinstance(data, dict):
        raise SpecError("The spec is not a mapping of keys.", "Start from assets/specs/demo.yaml.", code="no-mapping")
    return data


def validated(kind: type[AnyKind], data: dict[str, Any], *, stored: bool = False) -> AnyKind:
    """Validate a mapping as one kind of spec.

    Args:
        kind: of the spec.
        data: keys and values.
        stored: whether it is the spec of a run, which may use what was removed since (`core.contracts.removed`).

    Raises:
        SpecError: `problems` list each mistake.
    """
    try:
        return kind.model_validate(data, context=STORED if stored else None)
    except ValidationError as error:
        problems = [
            _problem(".".join(str(part) for part in item["loc"]) or "spec", item["type"], item["msg"])
            for item in error.errors()
        ]
        raise SpecError(
            f"The spec is not valid: {'; '.join(f'{one.place}: {one.message}' for one in problems)}.",
            "Correct the keys named and try again.",
            code="invalid-spec",
            problems=problems,
        ) from error


def _problem(place: str, kind: str, message: str) -> SpecProblem:
    if kind == "extra_forbidden" and place in REMOVED_KEYS:
        return SpecProblem(place, "removed_key", REMOVED_KEYS[place])
    return SpecProblem(place, kind, message)
