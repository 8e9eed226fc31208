"""What mergekit's merge methods take: their parameters, how many models, and what the base is to them.

The fast path (`core.merging.engine`) has six methods; the others are merged by mergekit itself
(`core.merging.mergekit_merge`). This is mergekit's registry as plain data, so that a spec can be checked and numbers
can be searched without loading it; a test holds the two equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Number = bool | int | float
Value = Number | tuple[float, ...]
"""One number for all models, or one for each of them."""
BaseRole = Literal["origin", "member", "either"]


@dataclass(frozen=True)
class MethodParameter:
    """One number of a method.

    Attributes:
        name: mergekit's.
        default: mergekit's, whose type is the parameter's; None where a number must be given.
        per_model: each model that has a task vector, or is merged, has its own.
    """

    name: str
    default: Number | None
    per_model: bool = False


@dataclass(frozen=True)
class MethodFacts:
    """One merge method.

    Attributes:
        title: its name in words.
        parameters: in mergekit's order.
        fewest: models of a pool, the base among them.
        most: None where there is no limit.
        base: `origin` of the task vectors, a `member` like the others, or `either`: the origin where it leaves two
            others to merge, else a member.
        random: draws random numbers, for all tensors or for large ones.
    """

    title: str
    parameters: tuple[MethodParameter, ...] = ()
    fewest: int = 2
    most: int | None = None
    base: BaseRole = "origin"
    random: bool = False


_WEIGHT = MethodParameter("weight", None, per_model=True)


def _task_vectors(normalize: bool, rescale: bool, *more: MethodParameter) -> tuple[MethodParameter, ...]:
    """Parameters of mergekit's family of task arithmetic."""
    return (
        MethodParameter("int8_mask", False),
        MethodParameter("normalize", normalize),
        MethodParameter("rescale", rescale),
        MethodParameter("lambda", 1.0),
        _WEIGHT,
        MethodParameter("density", 1.0, per_model=True),
        *more,
    )


_GAMMA = MethodParameter("gamma", 0.01, per_model=True)
_EPSILON = MethodParameter("epsilon", 0.15, per_model=True)

FAST: dict[str, MethodFacts] = {
    "ties": MethodFacts("TIES", _task_vectors(True, False)),
    "dare_ties": MethodFacts("DARE TIES", _task_vectors(False, True), random=True),
    "dare_linear": MethodFacts("Linear DARE", _task_vectors(False, True), random=True),
    "slerp": MethodFacts("SLERP", (MethodParameter("t", None),), most=2),
    "task_arithmetic": MethodFacts("Task Arithmetic", _task_vectors(False, False)),
    "linear": MethodFacts("Linear", (_WEIGHT, MethodParameter("normalize", True)), base="member"),
}
"""Those with a fast path."""

REGISTERED: dict[str, MethodFacts] = {
    "breadcrumbs": MethodFacts("Model Breadcrumbs", _task_vectors(False, False, _GAMMA)),
    "breadcrumbs_ties": MethodFacts("Model Breadcrumbs with TIES", _task_vectors(False, False, _GAMMA)),
    "della": MethodFacts("DELLA", _task_vectors(True, True, _EPSILON), random=True),
    "della_linear": MethodFacts("Linear DELLA", _task_vectors(False, True, _EPSILON), random=True),
    "sce": MethodFacts("SCE", (MethodParameter("int8_mask", False), MethodParameter("select_topk", 1.0))),
    "ram": MethodFacts("Reinforced Agent Merging", (MethodParameter("epsilon", 1e-5),)),
    "ramplus_tl": MethodFacts(
        "Reinforced Agent Merging Plus (Tensor-Local)",
        (MethodParameter("r", 0.1), MethodParameter("alpha", 0.2), MethodParameter("epsilon", 1e-5)),
    ),
    "model_stock": MethodFacts("Model Stock", (MethodParameter("filter_wise", False),), fewest=3),
    "nearswap": MethodFacts("NearSwap", (MethodParameter("t", None),), most=2),
    "arcee_fusion": MethodFacts("Arcee Fusion", most=2, random=True),
    "multislerp": MethodFacts(
        "Multi-SLERP",
        (_WEIGHT, MethodParameter("normalize_weights", True), MethodParameter("eps", 1e-8)),
        base="either",
    ),
    "nuslerp": MethodFacts(
        "NuSLERP",
        (_WEIGHT, MethodParameter("nuslerp_row_wise", False), MethodParameter("nuslerp_flatten", True)),
        most=3,
        base="either",
    ),
    "karcher": MethodFacts(
        "Karcher Mean", (MethodParameter("max_iter", 10), MethodParameter("tol", 1e-5)), base="member"
    ),
    "passthrough": MethodFacts("Passthrough", (MethodParameter("scale", None, per_model=True),), 1, 1, "member"),
}
"""Those that mergekit merges itself."""

METHODS = FAST | REGISTERED

_OPTIONS = ("int8_mask", "normalize", "rescale", "lambda")
_FAST_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("ties", "dare_ties", "dare_linear", "task_arithmetic"), ("int8_mask", "normalize", "rescale", "lambda")
    ),
    "linear": ("normalize",),
    "slerp": (),
}


def takes_base(method: str, experts: int) -> bool:
    """Whether task vectors are taken from the base; else it is merged like the experts, and comes first."""
    role = METHODS[method].base
    return role == "origin" or (role == "either" and experts > 1)


def merged_by_mergekit(method: str, parameters: Mapping[str, Value]) -> bool:
    """Whether mergekit's own code merges, as the fast path has no equal of the method or of its parameters."""
    if method not in FAST:
        return True
    return method in ("dare_ties", "dare_linear") and (
        parameters.get("normalize", False) is not False or "rescale" in parameters
    )


def parameter_of(method: str, name: str) -> MethodParameter | None:
    """A method's parameter by name."""
    return next((parameter for parameter in METHODS[method].parameters if parameter.name == name), None)


def has(method: str, name: str) -> bool:
    """Whether a method has a parameter of this name."""
    return parameter_of(method, name) is not None


def weight_count(method: str, experts: int) -> int:
    """How many weights a recipe of the method has."""
    if method == "slerp":
        return experts  # its t, as there is one
    if not has(method, "weight"):
        return 0
    return experts + (not takes_base(method, experts))


def setting(method: str, parameters: Mapping[str, Value], name: str) -> Value | None:
    """A parameter's value: the one given, else the method's default."""
    if name in parameters:
        return parameters[name]
    parameter = parameter_of(method, name)
    return parameter.default if parameter else None


def settable(method: str) -> tuple[MethodParameter, ...]:
    """What `search.parameters` may fix: on the fast path the options that its searched numbers leave open."""
    names = _FAST_OPTIONS.get(method)
    parameters = METHODS[method].parameters
    return parameters if names is None else tuple(item for item in parameters if item.name in names)


def refuse_pool(method: str, experts: int, *, outside_ancestor: bool) -> str:
    """Why a pool cannot be merged by a method; "" where it can.

    Args:
        experts: models with a task vector: all members but the one that task vectors are taken from.
        outside_ancestor: task vectors are taken from a model that is not merged.
    """
    facts, models = METHODS[method], experts + 1
    if facts.most == 1:
        return f"'{method}' copies one model and merges nothing: choose another method, such as ties"
    if outside_ancestor and not takes_base(method, experts):
        return (
            f"'{method}' merges whole models and takes no task vectors, but pool.ancestor is set: make it null, or "
            "choose another method, such as ties"
        )
    if facts.most is not None and models > facts.most:
        only = "exactly" if facts.most == facts.fewest else "at most"
        count = {2: "two", 3: "three"}[facts.most]
        counted = " with its ancestor" if outside_ancestor else ""
        return (
            f"'{method}' merges {only} {count} models, the base among them, but the pool has {models}{counted}: "
            "name fewer experts, or choose another method, such as ties"
        )
    if models < facts.fewest:
        return (
            f"'{method}' needs at least {facts.fewest} models, the base among them, but the pool has {models}: "
            "add an expert, or choose another method, such as ties"
        )
    return ""


def refuse_parameters(method: str, parameters: Mapping[str, Value], experts: int) -> str:
    """What is wrong with fixed parameters; "" where nothing is."""
    known = {parameter.name: parameter for parameter in settable(method)}
    for name, value in parameters.items():
        if name not in known:
            names = ", ".join(known) or "none"
            return f"'{method}' has no parameter '{name}' to fix; it has: {names}"
        problem = _refuse_value(known[name], value, weight_count(method, experts) if name == "weight" else experts)
        if problem:
            return f"'{name}' of '{method}' {problem}"
    if method == "linear" and parameters.get("normalize") is False:
        return "'linear' without normalize would scale the tensors in which all models agree: use task_arithmetic"
    if method == "multislerp" and experts == 1 and parameters.get("normalize_weights") is False:
        return "'multislerp' of two models without normalize_weights would scale the tensors in which they agree"
    return _refuse_della(method, parameters)


def _refuse_value(parameter: MethodParameter, value: Value, models: int) -> str:
    if isinstance(value, tuple):
        if not parameter.per_model:
            return "is one number for all models"
        if len(value) != models:
            return f"needs one number, or one for each of {models} models, got {len(value)}"
    values = value if isinstance(value, tuple) else (value,)
    return next((problem for one in values if (problem := _refuse_number(parameter, one))), "")


_LEAST: dict[str, float] = {"t": 0.0, "gamma": 0.0, "epsilon": 0.0, "r": 0.0, "alpha": 0.0, "select_topk": 0.0}
_MOST: dict[str, float] = {"density": 1.0, "select_topk": 1.0, "gamma": 1.0}


def _refuse_number(parameter: MethodParameter, value: Number) -> str:
    name, default = parameter.name, parameter.default
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else f"is true or false, not {value}"
    if isinstance(value, bool):
        return f"is a number, not {value}"
    if isinstance(default, int) and (not isinstance(value, int) or value < 1):
        return f"is a whole number from 1, not {value}"
    if not math.isfinite(value):
        return f"must be finite, not {value}"
    if name == "density" and value <= 0:
        return f"lies in (0, 1], not at {value}"
    if value < _LEAST.get(name, -math.inf) or value > _MOST.get(name, math.inf):
        return f"lies in [{_LEAST.get(name, 0.0):g}, {_MOST.get(name, math.inf):g}], not at {value}"
    return ""


def _refuse_della(method: str, parameters: Mapping[str, Value]) -> str:
    """DELLA keeps an entry with a probability of density - epsilon to density + epsilon."""
    if not method.startswith("della") or not {"density", "epsilon"} & parameters.keys():
        return ""
    if not {"density", "epsilon"} <= parameters.keys():
        return f"fix both density and epsilon of '{method}', which must fit together, or neither"
    density, epsilon = (_as_tuple(parameters[name]) for name in ("density", "epsilon"))
    longest = max(len(density), len(epsilon))
    pairs = zip(density * (longest // len(density)), epsilon * (longest // len(epsilon)), strict=True)
    if all(d >= 1 or (d - e > 0 and d + e < 1) for d, e in pairs):
        return ""
    return f"density - epsilon and density + epsilon of '{method}' must lie in (0, 1)"


def _as_tuple(value: Value) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
