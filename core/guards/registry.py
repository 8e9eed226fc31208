"""From a guard's name in a spec to the guard."""

from __future__ import annotations

from core.errors import GuardError
from core.guards.phrases import PhrasesGuard
from core.guards.protocol import Guard
from core.settings import Settings

SUPPORTED = ("phrases",)


def load_guard(name: str, settings: Settings) -> Guard:  # noqa: ARG001 - guards with weights need the home folder
    """The guard called `name`.

    Args:
        name: one of `SUPPORTED`.
        settings: where downloaded guards are kept.

    Raises:
        GuardError: no guard has this name.
    """
    if name == "phrases":
        return PhrasesGuard()
    raise GuardError(f"There is no guard called '{name}'.", f"Supported guards: {', '.join(SUPPORTED)}.")
