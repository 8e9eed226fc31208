"""What each way of keeping the pool's weights costs: `python -m benchmarks.storage --json`.

For resident, streamed and compact weights (`core.merging.storage`): seconds of a merge's one-off preparation (base and
task vectors taken up, magnitudes counted for TIES), seconds of a candidate, and bytes per parameter that wait beside
the live model; `extra` is what of it is more than base and expert as their bf16 checkpoints hold them. Two pools:

- `demo`: the aligned model and the chemistry expert, adapters merged in float32, 20 % of the weights differ;
- `full`: the same base rounded to bf16, and a made-up expert in which every weight has moved by noise of 1 %, in bf16;
  a full fine-tune's shape, labelled synthetic. mergekit's in-memory merge is timed on it too.

All ways must give the same weights: the hash of a merge is compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.merge import Workload, by_mergekit, demo_workload, recipe, tiny_workload
from benchmarks.timing import spread, timed
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
    """A workload, and whether its states are read in bf16 by a compact pool."""

    work: Workload
    plain: bool


def measure(demo: Workload, rounds: int, mergekit_rounds: int) -> dict[str, Any]:
    """Both pools, each way."""
    pools = {"demo": Pool(demo, plain=False), "full": Pool(full_fine_tune(demo), plain=True)}
    return {
        "benchmark": "storage",
        "dtype": str(demo.live.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "parameters": sum(tensor.numel() for tensor in demo.states[demo.names[0]].values()),
        "demo": measure_pool(pools["demo"], rounds),
        "full": measure_pool(pools["full"], rounds) | _mergekit(pools["full"].work, mergekit_rounds),
    }


def full_fine_tune(work: Workload) -> Workload:
    """The base in bf16, and an expert that differs from it in every tensor."""
    base_name, expert_name = work.names
    generator = torch.Generator().manual_seed(0)
    base = {key: tensor.bfloat16().float() for key, tensor in work.states[base_name].items()}
    expert = {}
    for key, tensor in base.items():
        noise = torch.randn(tensor.shape, generator=generator) * tensor.abs().mean() * NOISE
        expert[key] = (tensor + noise).bfloat16().float()
    return Workload(work.names, work.live, {base_name: base, expert_name: expert})


def measure_pool(pool: Pool, rounds: int) -> dict[str, Any]:
    """Time and size each way on one pool."""
    rows: dict[str, Any] = {}
    hashes = set()
    for name, storage in STORAGES.items():
        rows[name], sha256 = _measure_storage(pool, storage, rounds)
        hashes.add(sha256)
    return {"storages": rows, "same_weights": len(hashes) == 1}


def _measure_storage(pool: Pool, storage: Storage, rounds: int) -> tuple[dict[str, Any], str]:
    (base, expert), live = pool.work.names, pool.work.live
    states = {
        name: {key: tensor.bfloat16() for key, tensor in state.items()} if pool.plain and storage.compact else state
        for name, state in pool.work.states.items()
    }
    take_up_s, merge = timed(lambda: _take_up(pool.work, states, storage))
    first_s, _ = timed(lambda: merge.apply(recipe(pool.work.names, "ties", 0.5)))
    sha256 = sha256_of_model(live)
    wanted = [recipe(pool.work.names, "ties", (i + 0.25) / rounds) for i in range(rounds)]
    spent = [timed(partial(merge.apply, item))[0] for item in wanted]
    candidate_s = statistics.median(spent)
    kept = merge.stored_bytes
    parameters = sum(tensor.numel() for tensor in pool.work.states[base].values())
    return {
        "preparation_s": take_up_s + max(0.0, first_s - candidate_s),
        "candidate_s": {"median": candidate_s, "min": min(spent), "max": max(spent), "n": rounds},
        "bytes_per_parameter": {
            "base": kept[base] / parameters,
            "task_vector": kept[expert] / parameters,
            "trim_counts": kept["trim indices"] / parameters,
            "extra": sum(kept.values()) / parameters - 2 * _BF16_BYTES,
        },
    }, sha256


def _take_up(work: Workload, states: Mapping[str, Mapping[str, Tensor]], storage: Storage) -> MergePool:
    base, expert = work.names
    merge = MergePool(work.live, base, states[base], storage)
    merge.add_expert(expert, states[expert])
    return merge


def _mergekit(work: Workload, rounds: int) -> dict[str, Any]:
    wanted = [recipe(work.names, "ties", (i + 0.5) / rounds) for i in range(rounds)]
    spent = [timed(partial(by_mergekit, item, work))[0] for item in wanted]
    return {"mergekit_s": spread(spent)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--tiny", action="store_true", help="random weights, in seconds; not a measurement")
    parser.add_argument("--rounds", type=int, default=8, help="candidates of each way")
    parser.add_argument("--mergekit-rounds", type=int, default=3, help="merges by mergekit of the full pool")
    options = parser.parse_args()
    work = tiny_workload() if options.tiny else demo_workload()
    result = measure(work, options.rounds, options.mergekit_rounds)
    if options.json:
        print(json.dumps(result))
        return
    for pool in ("demo", "full"):
        for name, row in result[pool]["storages"].items():
            size = row["bytes_per_parameter"]
            print(
                f"{pool}, {name}: prepared in {row['preparation_s']:.2f} s, {row['candidate_s']['median']:.3f} s a "
                f"candidate, {size['base'] + size['task_vector'] + size['trim_counts']:.2f} bytes a parameter"
            )
        print(f"{pool}: same weights each way: {result[pool]['same_weights']}")


if __name__ == "__main__":
    main()
