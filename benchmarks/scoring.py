"""Compare the speed of scoring with the machine's matmul rate: `python -m benchmarks.scoring --json`.

It counts the floating-point operations of all matrix products in one scoring pass: those of linear layers from their
input rows, those of attention from its chunks. Then it times `torch.matmul` on the same shapes in the same number
format. `share` is the time of the pass at that rate divided by its real time. Pool and training pairs are those of
`benchmarks.candidate`. `kept_blocks` starts above the blocks that no candidate changes, as a run does; `every_block`
runs all blocks.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.candidate import open_pool, scorer_of
from benchmarks.command import machine_facts, make_parser
from benchmarks.inputs import Checkpoints, demo_checkpoints, tiny_checkpoints
from benchmarks.timing import seconds_of, spread
from core.models.packed_attention import Chunks, attended_pairs
from core.search.scoring import Scorer
from core.settings import load_settings

MATMUL_ROUNDS = 5


class Product(NamedTuple):
    """A matrix product: (rows, inner) times (inner, columns)."""

    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Floating-point operations of the product."""
        return 2 * self.rows * self.inner * self.columns


class MatrixProducts(NamedTuple):
    """Matrix products of one scoring pass: counts of the linear layers' by shape, and attention's operations."""

    linear: Counter[Product]
    attention_flops: int

    @property
    def flops(self) -> int:
        """Floating-point operations of the pass."""
        return self.attention_flops + sum(product.flops * count for product, count in self.linear.items())


def measure(checkpoints: Checkpoints, rounds: int) -> dict[str, Any]:
    """Count the operations of a pass and time it beside `torch.matmul`."""
    pool = open_pool(checkpoints)
    kept, every = scorer_of(pool, checkpoints, pool.merge.changing), scorer_of(pool, checkpoints, None)
    return {
        "benchmark": "scoring",
        "pool": checkpoints.name,
        "pairs": [len(checkpoints.safety), len(checkpoints.domain)],
        **machine_facts(pool.live),
        "kept_blocks": _measure_pass(pool.live, kept, rounds),
        "every_block": _measure_pass(pool.live, every, rounds),
    }


def _measure_pass(model: Any, scorer: Scorer, rounds: int) -> dict[str, Any]:
    products = count_products(model, scorer)
    linear_flops = products.flops - products.attention_flops
    times, limits = [], []
    for _ in range(rounds):  # alternate, as the machine's speed drifts
        times.append(seconds_of(scorer.score))
        limits.append(matmul_s(products.linear, model.dtype) * products.flops / linear_flops)
    seconds, limit_s = statistics.median(times), statistics.median(limits)
    return {
        "score_s": spread(times),
        "gflop": products.flops / 1e9,
        "attention_share_of_flop": products.attention_flops / products.flops,
        "matmul_gflops": products.flops / limit_s / 1e9,
        "reached_gflops": products.flops / seconds / 1e9,
        "share": limit_s / seconds,
    }


def count_products(model: Any, scorer: Scorer) -> MatrixProducts:
    """Count the matrix products of one scoring pass with forward hooks."""
    linear: Counter[Product] = Counter()
    attention, config = [0], model.config
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)

    def count_linear(layer: nn.Linear, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0].numel() // layer.in_features
        linear[Product(rows, layer.in_features, layer.out_features)] += 1

    def count_attention(_layer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        length = (positional[0] if positional else named["hidden_states"]).shape[1]
        chunks = named.get("chunks") or Chunks(0, ((0, length),))
        attention[0] += 2 * 2 * attended_pairs(chunks) * width  # queries by keys, then weights by values

    hooks = [m.register_forward_pre_hook(count_linear) for m in model.modules() if isinstance(m, nn.Linear)]
    hooks += [
        module.register_forward_pre_hook(count_attention, with_kwargs=True)
        for name, module in model.named_modules()
        if name.endswith("self_attn")
    ]
    try:
        scorer.score()
    finally:
        for hook in hooks:
            hook.remove()
    return MatrixProducts(linear, attention[0])


@torch.inference_mode()
def matmul_s(products: Counter[Product], dtype: torch.dtype) -> float:
    """Return the seconds of all products; each counts with the fastest of a few runs."""
    total = 0.0
    for product, count in products.items():
        left = torch.randn(product.rows, product.inner, dtype=dtype)
        right = torch.randn(product.columns, product.inner, dtype=dtype).T  # laid out as a linear layer's weights
        torch.matmul(left, right)
        total += count * min(seconds_of(torch.matmul, left, right) for _ in range(MATMUL_ROUNDS))
    return total


def main() -> None:
    """Measure and print."""
    parser = make_parser("scoring", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of scoring passes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        checkpoints = tiny_checkpoints(Path(name)) if options.tiny else demo_checkpoints(Path(name), load_settings())
        result = measure(checkpoints, options.rounds)
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
