"""Which pools and which fixed parameters a merge method accepts."""

from __future__ import annotations

import math
from collections.abc import Mapping

from core.contracts.merge_methods import LINEAR, METHODS, fixable_parameters, takes_base, weight_count
from core.contracts.method_info import MethodParameter, Number, Value
from core.contracts.validation import Refusal

_LEAST: dict[str, float] = {"t": 0.0, "gamma": 0.0, "epsilon": 0.0, "r": 0.0, "alpha": 0.0, "select_topk": 0.0}
_MOST: dict[str, float] = {"density": 1.0, "select_topk": 1.0, "gamma": 1.0}
_SHARES = ("threshold", "safety_share", "safety_ratio", "expert_ratio", "subspace_share", "budget")
_LEAST |= dict.fromkeys((*_SHARES, "drop_rate", "alignment_weight", "budget_weight"), 0.0)
_MOST |= {**dict.fromkeys(_SHARES, 1.0), "drop_rate": 0.99}


def refuse_pool(method: str, experts: int, *, outside_ancestor: bool) -> Refusal | None:
    """Why a method cannot merge a pool; None where it can.

    Args:
        method: a name of the table.
        experts: models with a task vector: all members but the one that task vectors are taken from.
        outside_ancestor: task vectors are taken from a model that is not merged.
    """
    info, models = METHODS[method], experts + 1
    if info.most == 1:
        message = f"'{method}' copies one model and merges nothing: choose another method, such as ties"
        return Refusal("method_merges_nothing", message)
    if outside_ancestor and not takes_base(method, experts):
        return Refusal(
            "method_without_task_vectors",
            f"'{method}' merges whole models and takes no task vectors, but pool.ancestor is set: make it null, or "
            "choose another method, such as ties",
        )
    if info.most is not None and models > info.most:
        only = "exactly" if info.most == info.fewest else "at most"
        count = {2: "two", 3: "three"}.get(info.most, str(info.most))
        counted = " with its ancestor" if outside_ancestor else ""
        return Refusal(
            "too_many_models",
            f"'{method}' merges {only} {count} models, the base among them, but the pool has {models}{counted}: "
            "name fewer experts, or choose another method, such as ties",
        )
    if models < info.fewest:
        return Refusal(
            "too_few_models",
            f"'{method}' needs at least {info.fewest} models, the base among them, but the pool has {models}: "
            "add an expert, or choose another method, such as ties",
        )
    return None


def refuse_parameters(method: str, parameters: Mapping[str, Value], experts: int) -> Refusal | None:
    """What is wrong with fixed parameters; None where nothing is."""
    known = {parameter.name: parameter for parameter in fixable_parameters(method)}
    for name, value in parameters.items():
        if name not in known:
            names = ", ".join(known) or "none"
            return Refusal("unknown_parameter", f"'{method}' has no parameter '{name}' to fix; it has: {names}")
        models = weight_count(method, experts) if name == "weight" else experts
        if refusal := _refuse_value(known[name], value, models):
            return Refusal(refusal.kind, f"'{name}' of '{method}' {refusal.message}")
    return _refuse_scaling(method, parameters, experts) or _refuse_ranking(method, parameters)


def _refuse_scaling(method: str, parameters: Mapping[str, Value], experts: int) -> Refusal | None:
    """Weights that are not normalized where every tensor in which the models agree would be scaled."""
    if method == LINEAR and parameters.get("normalize") is False:
        message = "without normalize would scale the tensors in which all models agree: use task_arithmetic"
        return Refusal("scales_equal_tensors", f"'{method}' {message}")
    if METHODS[method].base == "either" and experts == 1 and parameters.get("normalize_weights") is False:
        message = f"'{method}' of two models without normalize_weights would scale the tensors in which they agree"
        return Refusal("scales_equal_tensors", message)
    return None


def _refuse_value(parameter: MethodParameter, value: Value, models: int) -> Refusal | None:
    if isinstance(value, tuple):
        if not parameter.per_model:
            return Refusal("not_per_model", "is one number for all models")
        if len(value) != models:
            message = f"needs one number, or one for each of {models} models; {len(value)} are given"
            return Refusal("wrong_length", message)
    values = value if isinstance(value, tuple) else (value,)
    return next((refusal for one in values if (refusal := _refuse_number(parameter, one))), None)


def _refuse_number(parameter: MethodParameter, value: Number) -> Refusal | None:
    name, default = parameter.name, parameter.default
    if isinstance(default, bool):
        return None if isinstance(value, bool) else Refusal("not_a_boolean", f"is true or false, not {value}")
    if isinstance(value, bool):
        return Refusal("not_a_number", f"is a number, not {value}")
    if isinstance(default, int) and (not isinstance(value, int) or value < 1):
        return Refusal("not_a_whole_number", f"is a whole number from 1, not {value}")
    if not math.isfinite(value):
        return Refusal("not_finite", f"must be finite, not {value}")
    if name == "density" and value <= 0:
        return Refusal("out_of_range", f"must lie in (0, 1], not at {value}")
    low, high = _LEAST.get(name, -math.inf), _MOST.get(name, math.inf)
    if not low <= value <= high:
        return Refusal("out_of_range", f"must lie in [{max(low, 0.0):g}, {high:g}], not at {value}")
    return None


def _refuse_ranking(method: str, parameters: Mapping[str, Value]) -> Refusal | None:
    """DELLA keeps an entry with a probability of density - epsilon to density + epsilon."""
    given = {"density", "epsilon"} & parameters.keys()
    if not METHODS[method].ranks_rows or not given:
        return None
    if len(given) == 1:
        message = f"fix both density and epsilon of '{method}', which must fit together, or neither"
        return Refusal("density_without_epsilon", message)
    density, epsilon = (_as_tuple(parameters[name]) for name in ("density", "epsilon"))
    longest = max(len(density), len(epsilon))
    pairs = zip(density * (longest // len(density)), epsilon * (longest // len(epsilon)), strict=True)
    if all(d >= 1 or (d - e > 0 and d + e < 1) for d, e in pairs):
        return None
    message = f"density - epsilon and density + epsilon of '{method}' must lie in (0, 1)"
    return Refusal("density_and_epsilon_out_of_range", message)


def _as_tuple(value: Value) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
