"""Reading one field of a form: optional or required text, whole numbers, comma-separated lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import SpecError

MAX_DIGITS = 18
"""Longest whole number of a field; longer text is left for the spec to refuse."""


def optional(form: Mapping[str, Any], key: str) -> str | None:
    """Return a field's text; None if it is empty."""
    return str(form[key] or "").strip() or None


def required(form: Mapping[str, Any], key: str, what: str) -> str:
    """Return a field's text; raises `SpecError`, naming `what` the field is for, if it is empty."""
    value = optional(form, key)
    if value is None:
        raise SpecError(f"The field for {what} is empty.", "Fill it in, or choose the demo pool.", code="empty-field")
    return value


def whole(value: Any) -> Any:
    """Return 64 for 64.0, because number fields send floats; other values are left for the spec to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def optional_whole(form: Mapping[str, Any], key: str) -> Any:
    """Return the whole number in a text field, None if it is empty; other text is left for the spec to refuse.

    It is a text field because gradio shows an empty number field as 0.
    """
    value = optional(form, key)
    return int(value) if value and value.isdecimal() and len(value) <= MAX_DIGITS else value


def shown(value: int | None) -> str:
    """Return an optional whole number as text for such a field."""
    return "" if value is None else str(value)


def listed(text: str | None) -> list[str]:
    """Return the items of a comma-separated field."""
    return [item for part in str(text or "").split(",") if (item := part.strip())]
