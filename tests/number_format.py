"""Pins the number format that `auto` chooses, so that figures in tests do not depend on the machine."""

from __future__ import annotations

import pytest

from core.models import precision
from core.models.precision import Speed

_SPEEDS = {"bfloat16": Speed(1.0, 1.0), "float32": Speed(2.0, 1.0)}


def pin_number_format(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let `auto` choose `name` on the processor until `patch` is undone."""
    patch.setattr(precision, "stored_speed", lambda _folder: _SPEEDS[name])
