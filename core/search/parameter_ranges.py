"""Bounds and start of the searched parameters of methods that mergekit's own code merges.

A row of the table of methods may give a parameter's bounds; else its name decides. Weights that are normalized lie in
[0, 1] and start equal; other weights, and densities, have the bounds of the fast path (`core.search.genome`). A float
of an unknown name is searched around its default. Booleans, whole numbers and tolerances are not searched, and neither
is `lambda` where the weights are not normalized, as both would scale the merge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from core.contracts.merge_methods import METHODS, setting, takes_base
from core.contracts.method_info import MethodParameter, Range, Value


class FreeParameter(NamedTuple):
    """One searched parameter of a method; `model` is None where all models share it."""

    parameter: str
    model: str | None
    range: Range

    @property
    def name(self) -> str:
        """`PARAMETER:MODEL`, or the parameter's name alone."""
        return self.parameter if self.model is None else f"{self.parameter}:{self.model}"


_BY_NAME: dict[str, Range] = {
    "density": Range(0.05, 1.0, 0.6),
    "lambda": Range(0.5, 1.5, 1.0),
    "gamma": Range(0.0, 0.1, 0.01),
    "r": Range(0.0, 1.0, 0.1),
    "alpha": Range(0.0, 1.0, 0.2),
    "select_topk": Range(0.05, 1.0, 0.6),
}
_TOLERANCES = ("eps", "tol")


def free_parameters(
    method: str, base: str, experts: tuple[str, ...], fixed: Mapping[str, Value]
) -> tuple[FreeParameter, ...]:
    """The parameters of a method that are searched, in mergekit's order, without those in `fixed`."""
    models = experts if takes_base(method, len(experts)) else (base, *experts)
    free: list[FreeParameter] = []
    for parameter in METHODS[method].parameters:
        if parameter.name in fixed or not _is_searched(method, parameter, fixed):
            continue
        bounds = range_of(method, parameter, len(models), fixed)
        names: tuple[str | None, ...] = models if parameter.per_model else (None,)
        free += [FreeParameter(parameter.name, name, bounds) for name in names]
    return tuple(free)


def range_of(method: str, parameter: MethodParameter, models: int, fixed: Mapping[str, Value]) -> Range:
    """Bounds and start of a method's parameter, for each of `models` models."""
    if parameter.name == "weight":
        return Range(0.0, 1.0, 1.0 / models) if normalizes(method, fixed) else Range(0.0, 1.5, 0.5 / models)
    known = parameter.searched or _BY_NAME.get(parameter.name)
    if known is not None:
        return known
    default = float(parameter.default or 0.0)
    return Range(min(0.0, 2 * default), max(0.0, 2 * default), default) if default else Range(0.0, 1.0, 0.5)


def _is_searched(method: str, parameter: MethodParameter, fixed: Mapping[str, Value]) -> bool:
    if isinstance(parameter.default, int) or parameter.name in _TOLERANCES:
        return False
    return parameter.name != "lambda" or normalizes(method, fixed)


def normalizes(method: str, fixed: Mapping[str, Value]) -> bool:
    """Whether only the proportions of a method's weights count."""
    return METHODS[method].always_normalizes or any(
        setting(method, fixed, name) is True for name in ("normalize", "normalize_weights")
    )
