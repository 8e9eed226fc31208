"""Finds the code of a published method from the import path in its row of the table of methods."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

from core.merging.recipes import Recipe


def rule_of(recipe: Recipe) -> Callable[..., Any]:
    """The function at the import path `module:function` in the row of the recipe's method."""
    module, _, name = recipe.info.rule.partition(":")
    return cast(Callable[..., Any], getattr(importlib.import_module(module), name))
