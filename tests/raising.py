"""`raises(kind, code)`: as `pytest.raises`, for errors that carry a stable code; messages may change."""

from __future__ import annotations

from typing import TypeVar

import pytest

from core.errors import SafeMergeError

E = TypeVar("E", bound=SafeMergeError)


def raises(kind: type[E], code: str) -> pytest.RaisesExc[E]:
    """Expect an error of a kind with this code."""
    return pytest.raises(kind, check=lambda error: error.code == code)
