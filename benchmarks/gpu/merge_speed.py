"""Time of one candidate's merge next to the bandwidth limit, with and without kernels per tensor, and of mergekit's."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.gpu.random_pool import BASE, EXPERT, RandomPool, recipe_at
from benchmarks.gpu.sections import Check, Figures, NotRun
from core.contracts.merge_methods import FastMethod
from core.merging.tensor_writer import TensorWriter
from core.models.fingerprint import sha256_of_model
from core.models.loading import untied_state

METHODS: tuple[FastMethod, ...] = ("task_arithmetic", "slerp", "ties", "dare_ties")
FLOOR_BYTES = 6
"""Bytes per parameter that every merge of bfloat16 weights moves: it reads base and expert, and writes the merge."""
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
    """Time merges by one kernel per tensor and by torch's operators, and compare the weights of one layer.

    Raises:
        NotRun: the device is not a GPU.
    """
    if not check.on_gpu:
        raise NotRun("NVRTC compiles kernels for GPUs only.")
    compare_writers(check, pool, figures, TensorWriter())


def compare_writers(check: Check, pool: RandomPool, figures: Figures, fused: TensorWriter) -> None:
    """Time each method with `fused` and without kernels; the pool keeps its own writer.

    The median of three repetitions is given, because repeated densities leave out the search for thresholds.
    """
    floor, own = check.sections[f"{pool.size}/merge"]["floor_s"], pool.merge.writer
    live = {name: tensor for name, tensor in untied_state(pool.live).items() if _ONE_LAYER in name}
    for method in METHODS:
        recipe, row, merged = recipe_at((EXPERT,), method, 0.43), dict[str, float](), list[dict[str, Tensor]]()
        for name, pool.merge.writer in (("torch", TensorWriter(None)), ("kernel", fused)):
            pool.merge.apply(recipe)
            merged.append({key: tensor.clone() for key, tensor in live.items()})
            row[f"{name}_s"] = check.seconds(pool.merge.apply, recipe, rounds=3)
            row[f"{name}_over_floor"] = row[f"{name}_s"] / floor
        row["unequal"] = sum(int((tensor != merged[1][key]).sum()) for key, tensor in merged[0].items())
        figures[method] = row
    pool.merge.writer = own
    figures["refused"] = sorted(set(fused.refused.values()))


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
