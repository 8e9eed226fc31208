"""Checks that the pool has what the merge method needs, and says which of its parameters are searched."""

from __future__ import annotations

from collections.abc import Iterator

from core.contracts.events import CheckRow
from core.contracts.merge_methods import METHODS
from core.contracts.run_spec import RunSpec
from core.errors import ModelError
from core.models.references import parse_reference
from core.preflight.check_rows import RUN, error_row, ok_row
from core.search.parameter_ranges import free_parameters
from core.settings import Settings

_CHECK = "merge method"


def method_rows(spec: RunSpec, settings: Settings) -> Iterator[CheckRow]:
    """Yield the row of a method without a fast path; an error where the pool lacks a model that it needs."""
    info = METHODS[spec.search.method]
    if info.fast:
        return
    if info.needs_ancestor and (missing := _missing_ancestor(spec, settings)):
        hint = (
            "Set pool.ancestor to the model that the pool's base was aligned from (demo/base for the demo pool), or "
            "choose another method, such as ties."
        )
        yield error_row(RUN, _CHECK, f"{info.title} needs an unaligned ancestor, but {missing}", hint)
        return
    experts = tuple(expert.model for expert in spec.pool.experts)
    free = free_parameters(spec.search.method, spec.pool.base, experts, spec.search.parameters)
    searched = (
        f"searches {', '.join(one.name for one in free)}" if free else "has no parameter to search: one candidate"
    )
    seeded = "; random numbers follow from search.seed" * info.random
    merger = f"of {info.source}, merged by SafeMerge" if info.own else "merged by mergekit's own code"
    yield ok_row(RUN, _CHECK, f"{info.title}, {merger}; {searched}{seeded}")


def _missing_ancestor(spec: RunSpec, settings: Settings) -> str:
    """Why the pool has no unaligned ancestor; empty where it has one."""
    pool = spec.pool
    if pool.ancestor is None:
        return "pool.ancestor is null"
    members = {_identity(name, settings) for name in (pool.base, *(expert.model for expert in pool.experts))}
    if _identity(pool.ancestor, settings) in members:
        return f"pool.ancestor names {pool.ancestor}, which is a member of the pool"
    return ""


def _identity(text: str, settings: Settings) -> str:
    try:
        return parse_reference(text, settings).identity
    except ModelError:  # has an error row of its own
        return text
