"""Time of one candidate's merge next to the bandwidth limit, a prototype of a fused kernel, and mergekit."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.gpu.random_pool import BASE, EXPERT, RandomPool, recipe_at
from benchmarks.gpu.sections import Check, Figures, NotRun
from core.contracts.merge_methods import FastMethod
from core.models.fingerprint import sha256_of_model
from core.models.loading import untied_state

METHODS: tuple[FastMethod, ...] = ("task_arithmetic", "slerp", "ties", "dare_ties")
FLOOR_BYTES = 6
"""Bytes per parameter that every merge of bfloat16 weights moves: it reads base and expert, and writes the merge."""
_FUSED_TIES = """
template <typename T, typename S> T fused_ties(T base, T expert, S weight, S threshold) {
    float delta = float(expert) - float(base);
    return T(float(base) + (fabsf(delta) >= float(threshold) ? float(weight) * delta : 0.0f));
}
"""
_ONE_LAYER = ".layers.0."


def measure_merges(check: Check, pool: RandomPool, figures: Figures) -> None:
    """Time candidates of each method: the first, and the median of later ones, each with new densities."""
    figures["parameters"] = pool.parameters
    figures["floor_s"] = floor = FLOOR_BYTES * pool.parameters / check.sections["limits"]["copy_gbs"] / 1e9
    rounds = 1 if pool.size == "8b" else 3
    for method in METHODS:
        first = check.seconds(pool.merge.apply, recipe_at((EXPERT,), method, 0.11))
        recipes = [recipe_at((EXPERT,), method, (number + 0.5) / (rounds + 1)) for number in range(rounds)]
        seconds = _median([check.seconds(pool.merge.apply, recipe) for recipe in recipes])
        figures[method] = {"first_s": first, "s": seconds, "over_floor": seconds / floor}
    figures["fingerprint_s"] = check.seconds(sha256_of_model, pool.live)
    figures["stored_bytes"] = pool.merge.stored_bytes
    figures["ties_profile"] = check.profile(lambda: pool.merge.apply(recipe_at((EXPERT,), "ties", 0.43)))


def _median(times: Sequence[float]) -> float:
    return sorted(times)[len(times) // 2]


def measure_fused(check: Check, pool: RandomPool, figures: Figures) -> None:
    """Time a TIES merge in one kernel per tensor, compiled by NVRTC; compare it with task arithmetic at threshold 0.

    Raises:
        NotRun: the device is not a GPU.
    """
    if not check.on_gpu:
        raise NotRun("NVRTC compiles kernels for GPUs only.")
    kernel = torch.cuda.jiterator._create_jit_fn(_FUSED_TIES, weight=0.5, threshold=0.0)
    live = untied_state(pool.live)
    experts = {name: stored.values for name, stored in pool.merge._vectors[EXPERT].deltas.items()}

    def merge(names: Sequence[str], weight: float, threshold: float) -> None:
        for name in names:
            expert = experts[name].view_as(live[name])
            live[name].copy_(kernel(pool.base[name], expert, weight=weight, threshold=threshold))

    merge(list(experts), 0.5, 1e-3)
    figures["s"] = check.seconds(merge, list(experts), 0.4, 1e-3, rounds=5)
    figures["over_floor"] = figures["s"] / check.sections[f"{pool.size}/merge"]["floor_s"]
    pool.merge.apply(recipe_at((EXPERT,), "task_arithmetic", 0.5))
    expected: dict[str, Tensor] = {name: tensor.clone() for name, tensor in live.items() if _ONE_LAYER in name}
    merge(list(expected), 0.5, 0.0)
    figures["unequal"] = sum(int((tensor != live[name]).sum()) for name, tensor in expected.items())


def measure_mergekit(check: Check, pool: RandomPool, figures: Figures) -> None:
    """Time a TIES merge by mergekit in memory.

    Raises:
        NotRun: mergekit is not installed, or the pool is too large for it.
    """
    if importlib.util.find_spec("mergekit") is None:
        raise NotRun("mergekit is not installed.")
    if pool.size == "8b":
        raise NotRun("mergekit stores an 8B pool in float32, which does not fit into memory next to ours.")
    from mergekit.merge_methods import merge_state_dicts

    states = {BASE: pool.base, EXPERT: {name: tensor.to(check.device) for name, tensor in pool.expert.items()}}
    parameters = {"weight": {EXPERT: 0.5}, "density": {EXPERT: 0.4}, "normalize": False}
    types = {"dtype": torch.float32, "out_dtype": torch.bfloat16}
    figures["ties_s"] = check.seconds(
        lambda: merge_state_dicts(states, "ties", parameters=parameters, base=BASE, **types)
    )
