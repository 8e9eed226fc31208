"""What a person typed into one field of a form, read: text or nothing, a whole number, words between commas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import SpecError


def optional(form: Mapping[str, Any], key: str) -> str | None:
    """A field's text; None where it is empty."""
    return str(form[key] or "").strip() or None


def required(form: Mapping[str, Any], key: str, what: str) -> str:
    """A field's text; raises `SpecError`, which says `what`, where it is empty."""
    value = optional(form, key)
    if value is None:
        raise SpecError(f"The field for {what} is empty.", "Fill it in, or choose the demo pool.")
    return value


def whole(value: Any) -> Any:
    """Number fields send floats; 64.0 means 64, and 64.5 is left for the spec to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def optional_whole(form: Mapping[str, Any], key: str) -> Any:
    """A whole number in a field of text, as gradio shows an empty field of numbers as 0; None where it is empty.

    Other text is left for the spec to refuse.
    """
    value = optional(form, key)
    return int(value) if value and value.isdecimal() else value


def shown(value: int | None) -> str:
    """A whole number as text for such a field."""
    return "" if value is None else str(value)


def listed(text: str | None) -> list[str]:
    """Words between commas."""
    return [word for part in (text or "").split(",") if (word := part.strip())]
