"""Whether the device writes the same weights as the processor: every merge method with every way to store a pool."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor

from benchmarks.gpu.random_pool import BASE, build_model, nudged, recipe
from benchmarks.gpu.sections import Check, Figures
from core.contracts.run_spec import Method
from core.merging.engine import MergePool
from core.merging.storage import Storage
from core.models.loading import untied_state

METHODS: tuple[Method, ...] = get_args(Method)
_EXPERTS = ("random/one", "random/two")
_PLACE = 0.37


def measure_same_weights(check: Check, figures: Figures) -> None:
    """Compare each storage and method with the processor's resident merge, entry by entry."""
    model = build_model("tiny", torch.device("cpu"))
    base = {name: tensor.clone() for name, tensor in untied_state(model).items()}
    experts = {name: nudged(base, seed) for seed, name in enumerate(_EXPERTS, start=1)}
    expected = _merged(model, base, experts, Storage(torch.device("cpu")))
    for on_host, compact in ((False, False), (False, True), (True, False), (True, True)):
        name = ("streamed" if on_host else "resident") + (", compact" if compact else "")
        merged = _merged(model, base, experts, Storage(check.device, on_host, compact))
        figures[name] = {method: _difference(expected[method], merged[method]) for method in METHODS}
    figures["all_equal"] = all(not found["unequal"] for key, row in figures.items() for found in row.values())


def _merged(
    model: torch.nn.Module, base: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]], storage: Storage
) -> dict[Method, Tensor]:
    """All weights after a merge by each method, as one vector on the processor."""
    live = copy.deepcopy(model).to(storage.device)
    home = "cpu" if storage.on_host else storage.device
    pool = MergePool(live, BASE, {name: tensor.to(home) for name, tensor in base.items()}, storage)
    for name, state in experts.items():
        pool.add_expert(name, state)
    found: dict[Method, Tensor] = {}
    for method in METHODS:
        pool.apply(recipe(method, _EXPERTS[:1] if method == "slerp" else _EXPERTS, _PLACE))
        found[method] = torch.cat([tensor.cpu().reshape(-1) for tensor in live.state_dict().values()])
    return found


def _difference(expected: Tensor, found: Tensor) -> dict[str, float]:
    """Number of entries that differ, and the largest difference."""
    unequal = int((expected != found).sum())
    return {"unequal": unequal, "largest": float((expected.float() - found.float()).abs().max())}
