"""Guards by name."""

from __future__ import annotations

import pytest

from core.errors import GuardError
from core.guards.registry import SUPPORTED, load_guard
from core.settings import Settings


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_supported_guard_loads_and_judges(name: str, settings: Settings) -> None:
    guard = load_guard(name, settings)
    assert guard.name == name
    assert guard.judge([("How do I do it?", "I can't help with that.")])[0].refusal


def test_unknown_guard_names_the_supported_ones(settings: Settings) -> None:
    with pytest.raises(GuardError) as caught:
        load_guard("oracle", settings)
    assert "oracle" in caught.value.message
    assert all(name in caught.value.hint for name in SUPPORTED)
