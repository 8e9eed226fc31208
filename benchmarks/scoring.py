"""How close scoring comes to the machine's matmul rate: `python -m benchmarks.scoring --json`.

The floating-point operations of the matrix products that one scoring pass does are counted: every linear layer by the
rows it is given, attention by its stretches. Then `torch.matmul` is timed on the same shapes in the same number
format. `share` is the time that the pass would take at that rate, over the time that it takes. Same pool and training
pairs as `benchmarks.candidate`; `kept_blocks` starts above the blocks that no candidate changes, as a run does,
`every_block` runs all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.candidate import open_pool, scorer_of
from benchmarks.timing import spread, timed
from benchmarks.workload import Checkpoints, demo_checkpoints, tiny_checkpoints
from core.models.packed_attention import Stretches, products_of
from core.search.scoring import Scorer, TrainingSet
from core.settings import load_settings

MATMUL_ROUNDS = 5


class Product(NamedTuple):
    """(rows, inner) times (inner, columns)."""

    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns


class Work(NamedTuple):
    """Matrix products of one scoring pass: of the linear layers by shape, and attention's operations."""

    linear: Counter[Product]
    attention_flops: int

    @property
    def flops(self) -> int:
        return self.attention_flops + sum(product.flops * count for product, count in self.linear.items())


def measure(work: Checkpoints, rounds: int) -> dict[str, Any]:
    """Count, time and compare."""
    pool = open_pool(work)
    kept, every = scorer_of(pool, work, pool.merge.changing), scorer_of(pool, work, None)
    return {
        "benchmark": "scoring",
        "pool": work.name,
        "pairs": [len(work.safety), len(work.domain)],
        "dtype": str(pool.live.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "kept_blocks": _measure_pass(pool.live, kept, rounds),
        "every_block": _measure_pass(pool.live, every, rounds),
    }


def _measure_pass(model: Any, scorer: Scorer[TrainingSet], rounds: int) -> dict[str, Any]:
    done = count_products(model, scorer)
    linear_flops = done.flops - done.attention_flops
    spent, limits = [], []
    for _ in range(rounds):  # one after the other: the machine's speed drifts
        spent.append(timed(scorer.score)[0])
        limits.append(matmul_s(done.linear, model.dtype) * done.flops / linear_flops)
    seconds, limit_s = statistics.median(spent), statistics.median(limits)
    return {
        "score_s": spread(spent),
        "gflop": done.flops / 1e9,
        "attention_share_of_flop": done.attention_flops / done.flops,
        "matmul_gflops": done.flops / limit_s / 1e9,
        "reached_gflops": done.flops / seconds / 1e9,
        "share": limit_s / seconds,
    }


def count_products(model: Any, scorer: Scorer[TrainingSet]) -> Work:
    """The matrix products of one scoring pass, seen by hooks."""
    linear: Counter[Product] = Counter()
    attention, config = [0], model.config
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)

    def see_linear(layer: nn.Linear, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0].numel() // layer.in_features
        linear[Product(rows, layer.in_features, layer.out_features)] += 1

    def see_attention(_layer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        length = (positional[0] if positional else named["hidden_states"]).shape[1]
        stretches = named.get("stretches") or Stretches(0, ((0, length),))
        attention[0] += 2 * 2 * products_of(stretches) * width  # queries by keys, then weights by values

    hooks = [m.register_forward_pre_hook(see_linear) for m in model.modules() if isinstance(m, nn.Linear)]
    hooks += [
        module.register_forward_pre_hook(see_attention, with_kwargs=True)
        for name, module in model.named_modules()
        if name.endswith("self_attn")
    ]
    try:
        scorer.score()
    finally:
        for hook in hooks:
            hook.remove()
    return Work(linear, attention[0])


@torch.inference_mode()
def matmul_s(products: Counter[Product], dtype: torch.dtype) -> float:
    """Seconds of all products, each at the best of a few runs."""
    total = 0.0
    for product, count in products.items():
        left = torch.randn(product.rows, product.inner, dtype=dtype)
        right = torch.randn(product.columns, product.inner, dtype=dtype).T  # as a linear layer's weights lie
        torch.matmul(left, right)
        total += count * min(timed(lambda a=left, b=right: torch.matmul(a, b))[0] for _ in range(MATMUL_ROUNDS))
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--tiny", action="store_true", help="random weights, in seconds; not a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="scoring passes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = tiny_checkpoints(Path(name)) if options.tiny else demo_checkpoints(Path(name), load_settings())
        result = measure(work, options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    for key in ("kept_blocks", "every_block"):
        row = result[key]
        print(
            f"{key}: {row['score_s']['median']:.2f} s for {row['gflop']:.0f} GFLOP, {row['reached_gflops']:.0f} of "
            f"{row['matmul_gflops']:.0f} GFLOP/s: {row['share']:.0%}"
        )


if __name__ == "__main__":
    main()
