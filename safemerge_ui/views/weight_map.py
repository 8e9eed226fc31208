"""A map of a merge's weights: one row for each part of the tensors, one column for each group of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.contracts.merge_methods import METHODS
from core.merging.scopes import scope_label
from safemerge_ui.views.markup import scrolling, text

_REST = "rest"
_FULL = 1.5
"""Weight that is drawn in the full color."""


def weight_map(recipe: Mapping[str, Any]) -> str:
    """Return a map for each expert; empty for a recipe without groups of blocks.

    Args:
        recipe: `core.merging.recipes.Recipe` as a mapping.
    """
    scopes = [scope for scope in recipe.get("scopes") or () if scope.get("blocks")]
    if not scopes:
        return ""
    hidden = int(METHODS[recipe["method"]].merges_base)  # the base's own weight comes first
    maps = (_map(name, number + hidden, scopes) for number, name in enumerate(recipe["experts"]))
    return scrolling("Weights by layer") + f"{''.join(maps)}</div>"


def _map(name: str, number: int, scopes: list[Mapping[str, Any]]) -> str:
    blocks = sorted({tuple(scope["blocks"]) for scope in scopes})
    parts = sorted({scope.get("filter") or _REST for scope in scopes}, key=lambda part: (part == _REST, part))
    values = {(scope.get("filter") or _REST, tuple(scope["blocks"])): scope["weights"][number] for scope in scopes}
    heads = "".join(f'<th scope="col" title="{text(scope_label(one, None))}">{one[0]}</th>' for one in blocks)
    rows = "".join(
        f'<tr><th scope="row">{text(part)}</th>{"".join(_cell(values.get((part, one))) for one in blocks)}</tr>'
        for part in parts
    )
    return (
        f'<table class="sm-table sm-map"><caption>Weights of {text(name)}, by first block</caption>'
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _cell(weight: float | None) -> str:
    if weight is None:
        return "<td></td>"
    color = "201, 120, 29" if weight >= 0 else "77, 134, 198"
    strength = min(1.0, abs(weight) / _FULL)
    return f'<td style="background: rgba({color}, {strength:.2f})" title="{weight:.3f}">{weight:.1f}</td>'
