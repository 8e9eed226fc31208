"""The table of merge methods: parameters, pool sizes, the base's role, and how the fast path merges them.

Rows with `fast` are merged by `core.merging.engine`, rows with `source` by `core.merging.rivals`; mergekit's own code
merges the others (`core.merging.mergekit_merge`). To add a method, add its row: the spec, the search, the page and the
report follow.
Titles and parameters of mergekit's methods are those of its registry, as plain data, so that a spec can be checked
without loading mergekit; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from core.contracts.method_info import MethodInfo, MethodParameter, Range, Value
from core.contracts.published_methods import PUBLISHED
from core.contracts.validation import OneOf

LINEAR = "linear"
"""Every parent is a linear merge in which it alone has a weight."""
TASK_ARITHMETIC = "task_arithmetic"
DARE = "dare_linear"

_WEIGHT = MethodParameter("weight", None, per_model=True)
_OPTIONS = ("int8_mask", "normalize", "rescale", "lambda")


def _task_vectors(
    normalize: bool, rescale: bool, *more: MethodParameter, density: Range | None = None
) -> tuple[MethodParameter, ...]:
    """Parameters of mergekit's family of task arithmetic."""
    return (
        MethodParameter("int8_mask", False),
        MethodParameter("normalize", normalize),
        MethodParameter("rescale", rescale),
        MethodParameter("lambda", 1.0),
        _WEIGHT,
        MethodParameter("density", 1.0, per_model=True, searched=density),
        *more,
    )


_TRIMMED = Range(0.05, 1.0, 0.6)
"""Below 0.05 mergekit keeps almost nothing."""
_DROPPED = Range(0.1, 1.0, 0.6)
"""At 0.1 each kept entry counts tenfold already."""
_DELLA_DENSITY = Range(0.2, 0.8, 0.6)
"""With epsilon's range, density - epsilon and density + epsilon stay in (0, 1)."""
_GAMMA = MethodParameter("gamma", 0.01, per_model=True)
_EPSILON = MethodParameter("epsilon", 0.15, per_model=True, searched=Range(0.02, 0.19, 0.15))
_SIZE_OF_DIFFERENCE = MethodParameter("epsilon", 1e-5, searched=Range(1e-7, 1e-2, 1e-5, log=True))
"""Differences of a fine-tune are around 1e-4."""

METHODS: dict[str, MethodInfo] = {
    "ties": MethodInfo(
        "TIES",
        _task_vectors(True, False, density=_TRIMMED),
        fast=True,
        drops="magnitude",
        elects_signs=True,
        can_normalize=True,
        fixable=_OPTIONS,
    ),
    "dare_ties": MethodInfo(
        "DARE TIES",
        _task_vectors(False, True, density=_DROPPED),
        random=True,
        page_title="DARE-TIES",
        fast=True,
        drops="random",
        elects_signs=True,
        fixable=_OPTIONS,
    ),
    DARE: MethodInfo(
        "Linear DARE",
        _task_vectors(False, True, density=_DROPPED),
        random=True,
        page_title="DARE",
        fast=True,
        drops="random",
        can_normalize=True,
        fixable=_OPTIONS,
    ),
    "slerp": MethodInfo("SLERP", (MethodParameter("t", None),), most=2, fast=True, interpolates=True, fixable=()),
    TASK_ARITHMETIC: MethodInfo(
        "Task Arithmetic",
        _task_vectors(False, False),
        page_title="Task arithmetic",
        fast=True,
        can_normalize=True,
        fixable=_OPTIONS,
    ),
    LINEAR: MethodInfo(
        "Linear",
        (_WEIGHT, MethodParameter("normalize", True)),
        base="member",
        fast=True,
        fixable=("normalize",),
        refuses_zero_sum=True,
    ),
    "breadcrumbs": MethodInfo("Model Breadcrumbs", _task_vectors(False, False, _GAMMA)),
    "breadcrumbs_ties": MethodInfo("Model Breadcrumbs with TIES", _task_vectors(False, False, _GAMMA)),
    "della": MethodInfo(
        "DELLA", _task_vectors(True, True, _EPSILON, density=_DELLA_DENSITY), random=True, ranks_rows=True
    ),
    "della_linear": MethodInfo(
        "Linear DELLA", _task_vectors(False, True, _EPSILON, density=_DELLA_DENSITY), random=True, ranks_rows=True
    ),
    "sce": MethodInfo("SCE", (MethodParameter("int8_mask", False), MethodParameter("select_topk", 1.0))),
    "ram": MethodInfo("Reinforced Agent Merging", (_SIZE_OF_DIFFERENCE,)),
    "ramplus_tl": MethodInfo(
        "Reinforced Agent Merging Plus (Tensor-Local)",
        (MethodParameter("r", 0.1), MethodParameter("alpha", 0.2), _SIZE_OF_DIFFERENCE),
    ),
    "model_stock": MethodInfo("Model Stock", (MethodParameter("filter_wise", False),), fewest=3),
    "nearswap": MethodInfo(
        "NearSwap", (MethodParameter("t", None, searched=Range(1e-5, 1e-1, 1e-3, log=True)),), most=2
    ),
    "arcee_fusion": MethodInfo("Arcee Fusion", most=2, random=True),
    "multislerp": MethodInfo(
        "Multi-SLERP",
        (_WEIGHT, MethodParameter("normalize_weights", True), MethodParameter("eps", 1e-8)),
        base="either",
        refuses_zero_sum=True,
    ),
    "nuslerp": MethodInfo(
        "NuSLERP",
        (_WEIGHT, MethodParameter("nuslerp_row_wise", False), MethodParameter("nuslerp_flatten", True)),
        most=3,
        base="either",
        always_normalizes=True,
    ),
    "karcher": MethodInfo(
        "Karcher Mean", (MethodParameter("max_iter", 10), MethodParameter("tol", 1e-5)), base="member"
    ),
    "passthrough": MethodInfo("Passthrough", (MethodParameter("scale", None, per_model=True),), 1, 1, "member"),
    **PUBLISHED,
}
"""By name; those of the fast path first, those that mergekit lacks last."""


def method_names() -> tuple[str, ...]:
    """Values of `search.method`."""
    return tuple(METHODS)


def fast_methods() -> tuple[str, ...]:
    """Methods that the fast path merges."""
    return tuple(name for name, info in METHODS.items() if info.fast)


def mergekit_methods() -> tuple[str, ...]:
    """Methods that mergekit's own code merges."""
    return tuple(name for name, info in METHODS.items() if not (info.fast or info.own))


def rival_methods() -> tuple[str, ...]:
    """Published methods that mergekit lacks, which `core.merging.rivals` merges."""
    return tuple(name for name, info in METHODS.items() if info.own)


def offered_methods() -> dict[str, str]:
    """Titles on the page by name, of the methods that merge more than one model."""
    return {name: info.page_title or info.title for name, info in METHODS.items() if info.most != 1}


def method_title(name: str) -> str:
    """A method's name on the page; a name that no row has stays as it is."""
    return offered_methods().get(name, name)


def takes_base(method: str, experts: int) -> bool:
    """Whether task vectors are taken from the base; else it is merged like the experts, and comes first."""
    role = METHODS[method].base
    return role == "origin" or (role == "either" and experts > 1)


def merged_by_mergekit(method: str, parameters: Mapping[str, Value]) -> bool:
    """Whether mergekit's own code merges, because the fast path lacks the method or these parameters of it."""
    info = METHODS[method]
    if not info.fast:
        return not info.own
    return info.drops == "random" and (parameters.get("normalize", False) is not False or "rescale" in parameters)


def merges_whole_tensors(method: str, parameters: Mapping[str, Value]) -> bool:
    """Whether all models' values of a tensor are needed at once, instead of piece by piece as on the fast path."""
    info = METHODS[method]
    return (info.own and not info.adds_models) or merged_by_mergekit(method, parameters)


def weight_count(method: str, experts: int) -> int:
    """How many weights a recipe of the method has."""
    info = METHODS[method]
    if info.interpolates:
        return experts  # its t, as there is one expert
    if info.parameter("weight") is None:
        return 0
    return experts + (not takes_base(method, experts))


def setting(method: str, parameters: Mapping[str, Value], name: str) -> Value | None:
    """A parameter's value: the given one, else the method's default."""
    if name in parameters:
        return parameters[name]
    parameter = METHODS[method].parameter(name)
    return parameter.default if parameter else None


def fixable_parameters(method: str) -> tuple[MethodParameter, ...]:
    """What `search.parameters` may fix: on the fast path the options that are not searched."""
    info = METHODS[method]
    return tuple(item for item in info.parameters if info.fixable is None or item.name in info.fixable)


MergeMethod = Annotated[str, OneOf(method_names)]
FastMethod = Annotated[str, OneOf(fast_methods)]
