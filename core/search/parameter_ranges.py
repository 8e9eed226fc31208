"""Between which bounds a method's numbers are searched, and from where, by their names.

For the methods that mergekit itself merges. Weights that are normalised lie in [0, 1] and start equal; others, and
densities, as on the fast path (`core.search.genome`). DELLA's density and epsilon keep away from each other so far that
every pair of them means something. Thresholds on the size of a difference (NearSwap's t, RAM's epsilon) are searched by
their logarithm: a fine-tune's differences lie around 1e-4. A float of an unknown name is searched around its default;
truth values, whole numbers and tolerances keep theirs, and so does `lambda` where weights already say how much.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from core.contracts.merge_methods import REGISTERED, MethodParameter, Value, setting, takes_base


class Range(NamedTuple):
    """Bounds and start of a number; `log` where its logarithm is searched."""

    low: float
    high: float
    start: float
    log: bool = False


class FreeParameter(NamedTuple):
    """One searched number of a method; `model` is None where it is for all models."""

    parameter: str
    model: str | None
    range: Range

    @property
    def name(self) -> str:
        return self.parameter if self.model is None else f"{self.parameter}:{self.model}"


_THRESHOLD = Range(1e-7, 1e-2, 1e-5, log=True)
_BY_NAME: dict[str, Range] = {
    "density": Range(0.05, 1.0, 0.6),
    "lambda": Range(0.5, 1.5, 1.0),
    "gamma": Range(0.0, 0.1, 0.01),
    "r": Range(0.0, 1.0, 0.1),
    "alpha": Range(0.0, 1.0, 0.2),
    "select_topk": Range(0.05, 1.0, 0.6),
}
_BY_METHOD: dict[tuple[str, str], Range] = {
    ("della", "density"): Range(0.2, 0.8, 0.6),
    ("della", "epsilon"): Range(0.02, 0.19, 0.15),
    ("della_linear", "density"): Range(0.2, 0.8, 0.6),
    ("della_linear", "epsilon"): Range(0.02, 0.19, 0.15),
    ("nearswap", "t"): Range(1e-5, 1e-1, 1e-3, log=True),
    ("ram", "epsilon"): _THRESHOLD,
    ("ramplus_tl", "epsilon"): _THRESHOLD,
}
_TOLERANCES = ("eps", "tol")


def free_parameters(
    method: str, base: str, experts: tuple[str, ...], fixed: Mapping[str, Value]
) -> tuple[FreeParameter, ...]:
    """The numbers of a method of mergekit's that are searched, in its own order; those in `fixed` are not."""
    models = experts if takes_base(method, len(experts)) else (base, *experts)
    found: list[FreeParameter] = []
    for parameter in REGISTERED[method].parameters:
        if parameter.name in fixed or not _is_searched(method, parameter, fixed):
            continue
        bounds = range_of(method, parameter, len(models), fixed)
        names: tuple[str | None, ...] = models if parameter.per_model else (None,)
        found += [FreeParameter(parameter.name, name, bounds) for name in names]
    return tuple(found)


def range_of(method: str, parameter: MethodParameter, models: int, fixed: Mapping[str, Value]) -> Range:
    """Bounds and start of a method's parameter, of each of `models` models."""
    if parameter.name == "weight":
        return Range(0.0, 1.0, 1.0 / models) if normalizes(method, fixed) else Range(0.0, 1.5, 0.5 / models)
    known = _BY_METHOD.get((method, parameter.name)) or _BY_NAME.get(parameter.name)
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
    return method == "nuslerp" or any(
        setting(method, fixed, name) is True for name in ("normalize", "normalize_weights")
    )
