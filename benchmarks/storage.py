"""Measure the cost of each weight storage: `python -m benchmarks.storage --json`.

For resident, streamed and compact storage (`core.merging.storage`) it measures the seconds of the preparation (store
base and task vectors, count magnitudes for TIES), the seconds per candidate, and the bytes per parameter stored beside
the live model. `extra` is the part of these bytes beyond the base and the expert as bf16 checkpoints. Two pools:

- `demo`: the aligned model and the chemistry expert, adapters merged in float32; 20 % of the weights differ;
- `full`: the same base rounded to bf16, and a synthetic expert: noise of 1 % on every weight, in bf16, as after a full
  fine-tune. mergekit's in-memory merge of this pool is timed too.

All storages must give the same weights; the hashes of a merge are compared.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.command import machine_facts, make_parser
from benchmarks.merge import MergeInputs, by_mergekit, demo_inputs, recipe_at, tiny_inputs
from benchmarks.timing import seconds_of, spread, timed
from core.merging.engine import MergePool
from core.merging.storage import Storage
from core.models.fingerprint import sha256_of_model

CPU = torch.device("cpu")
STORAGES = {
    "resident": Storage(CPU),
    "streamed": Storage(CPU, on_host=True),
    "compact": Storage(CPU, compact=True),
}
NOISE = 0.01
_BF16_BYTES = 2


@dataclass(frozen=True)
class Pool:
    """The models of a pool, and whether compact storage reads them in bf16."""

    inputs: MergeInputs
    bf16: bool


def measure(demo: MergeInputs, rounds: int, mergekit_rounds: int) -> dict[str, Any]:
    """Measure each storage on both pools."""
    pools = {"demo": Pool(demo, bf16=False), "full": Pool(full_fine_tune(demo), bf16=True)}
    return {
        "benchmark": "storage",
        **machine_facts(demo.live),
        "parameters": sum(tensor.numel() for tensor in demo.states[demo.names[0]].values()),
        "demo": measure_pool(pools["demo"], rounds),
        "full": measure_pool(pools["full"], rounds) | _mergekit(pools["full"].inputs, mergekit_rounds),
    }


def full_fine_tune(inputs: MergeInputs) -> MergeInputs:
    """Return the base in bf16, and an expert that differs from it in every tensor."""
    base_name, expert_name = inputs.names
    generator = torch.Generator().manual_seed(0)
    base = {key: tensor.bfloat16().float() for key, tensor in inputs.states[base_name].items()}
    expert = {}
    for key, tensor in base.items():
        noise = torch.randn(tensor.shape, generator=generator) * tensor.abs().mean() * NOISE
        expert[key] = (tensor + noise).bfloat16().float()
    return MergeInputs(inputs.names, inputs.live, {base_name: base, expert_name: expert})


def measure_pool(pool: Pool, rounds: int) -> dict[str, Any]:
    """Measure time and size of each storage on one pool."""
    rows: dict[str, Any] = {}
    hashes = set()
    for name, storage in STORAGES.items():
        rows[name], sha256 = _measure_storage(pool, storage, rounds)
        hashes.add(sha256)
    return {"storages": rows, "same_weights": len(hashes) == 1}


def _measure_storage(pool: Pool, storage: Storage, rounds: int) -> tuple[dict[str, Any], str]:
    inputs, (base, expert) = pool.inputs, pool.inputs.names
    states = {
        name: {key: tensor.bfloat16() for key, tensor in state.items()} if pool.bf16 and storage.compact else state
        for name, state in inputs.states.items()
    }
    load_s, merge = timed(lambda: _store(inputs, states, storage))
    first_s = seconds_of(merge.apply, recipe_at(inputs.names, "ties", 0.5))
    sha256 = sha256_of_model(inputs.live)
    recipes = [recipe_at(inputs.names, "ties", (i + 0.25) / rounds) for i in range(rounds)]
    times = [seconds_of(merge.apply, recipe) for recipe in recipes]
    stored = merge.stored_bytes
    parameters = sum(tensor.numel() for tensor in inputs.states[base].values())
    return {
        "preparation_s": load_s + max(0.0, first_s - statistics.median(times)),
        "candidate_s": spread(times),
        "bytes_per_parameter": {
            "base": stored[base] / parameters,
            "task_vector": stored[expert] / parameters,
            "trim_counts": stored["trim indices"] / parameters,
            "extra": sum(stored.values()) / parameters - 2 * _BF16_BYTES,
        },
    }, sha256


def _store(inputs: MergeInputs, states: Mapping[str, Mapping[str, Tensor]], storage: Storage) -> MergePool:
    base, expert = inputs.names
    merge = MergePool(inputs.live, base, states[base], storage)
    merge.add_expert(expert, states[expert])
    return merge


def _mergekit(inputs: MergeInputs, rounds: int) -> dict[str, Any]:
    recipes = [recipe_at(inputs.names, "ties", (i + 0.5) / rounds) for i in range(rounds)]
    return {"mergekit_s": spread([seconds_of(by_mergekit, recipe, inputs) for recipe in recipes])}


def main() -> None:
    """Measure and print."""
    parser = make_parser("storage", __doc__)
    parser.add_argument("--rounds", type=int, default=8, help="number of candidates per storage")
    parser.add_argument("--mergekit-rounds", type=int, default=3, help="number of mergekit's merges of the full pool")
    options = parser.parse_args()
    inputs = tiny_inputs() if options.tiny else demo_inputs()
    result = measure(inputs, options.rounds, options.mergekit_rounds)
    if options.json:
        print(json.dumps(result))
        return
    for pool in ("demo", "full"):
        for name, row in result[pool]["storages"].items():
            size = row["bytes_per_parameter"]
            print(
                f"{pool}, {name}: prepared in {row['preparation_s']:.2f} s, {row['candidate_s']['median']:.3f} s per "
                f"candidate, {size['base'] + size['task_vector'] + size['trim_counts']:.2f} bytes per parameter"
            )
        print(f"{pool}: same weights from each storage: {result[pool]['same_weights']}")


if __name__ == "__main__":
    main()
