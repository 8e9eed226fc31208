"""What specs of earlier versions could ask for and this version lacks.

A new spec that asks for it is refused with what to use instead. The stored spec of an earlier run is read, so that the
run can be looked at; it cannot be resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_INSTEAD = "use optimizer bayes for up to 4 parameters, or gradient for more"

REMOVED_OPTIMIZERS: Mapping[str, str] = {"evomm_surrogate": f"'evomm_surrogate' was removed: {_INSTEAD}"}
"""Names that stood in `search.optimizer` and `search.compare`, and why each is refused."""
RACING = "search.racing"
REMOVED_KEYS: Mapping[str, str] = {RACING: f"racing was removed: leave the key out, and {_INSTEAD}"}
"""Keys whose old default is accepted and dropped, and why any other value is refused."""


def removed_optimizers() -> Mapping[str, str]:
    """Optimizers of earlier versions, and why each is refused."""
    return REMOVED_OPTIMIZERS


def removed_parts(spec: Mapping[str, Any]) -> list[str]:
    """The removed optimizers and keys that the stored spec of a run uses.

    Args:
        spec: a valid spec as a mapping.
    """
    search = spec.get("search") or {}
    names = (search.get("optimizer"), *search.get("compare", ()))
    found = [name for name in names if name in REMOVED_OPTIMIZERS]
    return [*dict.fromkeys(found), *([RACING] if search.get("racing") else [])]
