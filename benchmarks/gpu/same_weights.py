"""Compares the merged weights of the device with those of the CPU, for every fast method and pool storage."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.gpu.random_pool import BASE, build_model, perturbed, recipe_at
from benchmarks.gpu.sections import Check, Figures
from core.contracts.merge_methods import METHODS, fast_methods
from core.merging.engine import MergePool
from core.merging.storage import Storage
from core.models.loading import untied_state

_EXPERTS = ("random/one", "random/two")
_POSITION = 0.37


def measure_same_weights(check: Check, figures: Figures) -> None:
    """Compare each storage and method with the CPU's resident merge, entry by entry."""
    model = build_model("tiny", torch.device("cpu"))
    base = {name: tensor.clone() for name, tensor in untied_state(model).items()}
    experts = {name: perturbed(base, seed) for seed, name in enumerate(_EXPERTS, start=1)}
    expected = _merged(model, base, experts, Storage(torch.device("cpu")))
    storages = {
        "resident": Storage(check.device),
        "resident, compact": Storage(check.device, compact=True),
        "streamed": Storage(check.device, on_host=True),
        "streamed, compact": Storage(check.device, on_host=True, compact=True),
        "experts on the host": Storage(check.device, on_host=True, compact=True, base_on_device=True),
    }
    for name, storage in storages.items():
        merged = _merged(model, base, experts, storage)
        figures[name] = {method: _difference(expected[method], merged[method]) for method in fast_methods()}
    figures["all_equal"] = all(not difference["unequal"] for row in figures.values() for difference in row.values())


def _merged(
    model: torch.nn.Module, base: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]], storage: Storage
) -> dict[str, Tensor]:
    """Return all weights after a merge by each method, as one vector on the CPU."""
    live = copy.deepcopy(model).to(storage.device)
    home = "cpu" if storage.on_host else storage.device
    pool = MergePool(live, BASE, {name: tensor.to(home) for name, tensor in base.items()}, storage)
    for name, state in experts.items():
        pool.add_expert(name, state)
    merged: dict[str, Tensor] = {}
    for method in fast_methods():
        experts_of = _EXPERTS[:1] if METHODS[method].interpolates else _EXPERTS
        pool.apply(recipe_at(experts_of, method, _POSITION))
        merged[method] = torch.cat([tensor.cpu().reshape(-1) for tensor in live.state_dict().values()])
    return merged


def _difference(expected: Tensor, actual: Tensor) -> dict[str, float]:
    """Return the number of entries that differ, and the largest difference."""
    unequal = int((expected != actual).sum())
    return {"unequal": unequal, "largest": float((expected.float() - actual.float()).abs().max())}
