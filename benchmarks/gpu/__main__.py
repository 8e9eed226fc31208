"""Compare merging and scoring on a GPU with its limits: `python -m benchmarks.gpu [--tiny] [--sizes 1b,8b] --json`.

Random pools with the shape of a Llama are built in memory, so nothing is downloaded or read from disk. The result lists
each section that fails, that needs a GPU, or that the time budget leaves out; the other sections still run. On a GPU
the result is also written to `benchmarks/results/gpu-CARD-DATE.json`. `--tiny` runs every section on a pool of a few
thousand weights: it checks that the code works on this device, and measures nothing.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch

from benchmarks.command import make_parser
from benchmarks.gpu.gradient_cost import measure_gradient
from benchmarks.gpu.machine_limits import measure_limits
from benchmarks.gpu.mask_speed import measure_masks
from benchmarks.gpu.merge_speed import measure_fused, measure_mergekit, measure_merges
from benchmarks.gpu.packed_scoring import measure_scoring
from benchmarks.gpu.random_pool import SHAPES, RandomPool, build_pool
from benchmarks.gpu.run_estimate import estimate
from benchmarks.gpu.same_weights import measure_same_weights
from benchmarks.gpu.sections import Check, Figures
from benchmarks.gpu.short_search import measure_search
from benchmarks.gpu.targets import targets_of
from benchmarks.gpu.trim_speed import measure_trimming
from core.models.allocation import keep_freed_memory
from core.models.precision import pick_device
from core.settings import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
_TINY_PAIRS = 24
_SECTIONS: tuple[tuple[str, Callable[[Check, RandomPool, Figures], None], float, float], ...] = (
    ("merge", measure_merges, 20.0, 60.0),
    ("fused", measure_fused, 20.0, 20.0),
    ("score", measure_scoring, 20.0, 60.0),
    ("gradient", measure_gradient, 20.0, 40.0),
    ("search", measure_search, 20.0, 40.0),
    ("mergekit", measure_mergekit, 40.0, 60.0),
)
"""Name, function, and seconds that must be left for a small pool and for an 8B pool."""


def measure(device: torch.device, sizes: Sequence[str], budget_s: float, pairs: int) -> dict[str, Any]:
    """Run all sections on `device`.

    Args:
        device: the device to measure.
        sizes: keys of `SHAPES`.
        budget_s: seconds after which no further section starts.
        pairs: number of training pairs of each kind.
    """
    check = Check(device, budget_s, tiny=list(sizes) == ["tiny"])
    check.section("limits", partial(measure_limits, check))
    check.section("same_weights", partial(measure_same_weights, check))
    check.section("masks", partial(measure_masks, check))
    check.section("trimming", partial(measure_trimming, check))
    for size in sizes:
        _measure_size(check, size, _TINY_PAIRS if check.tiny else 2 * pairs)
    targets = [target for size in sizes for target in targets_of(size, check.sections)]
    return {
        "benchmark": "gpu",
        "device": torch.cuda.get_device_name(device) if check.on_gpu else device.type,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "sizes": list(sizes),
        "sections": check.sections,
        "targets": [target.as_json() for target in targets],
        "run_estimate": estimate({} if check.tiny or not check.on_gpu else check.sections),
        "errors": check.errors,
        "not_run": check.not_run,
        "seconds": round(check.spent_s, 1),
    }


def _measure_size(check: Check, size: str, pairs: int) -> None:
    """Run all sections of one pool size on the same pool."""
    built: list[RandomPool] = []
    big = size == "8b"
    check.section(
        f"{size}/pool", lambda figures: built.append(build_pool(check, size, pairs, figures)), 60.0 if big else 10.0
    )
    for name, work, need_s, need_big_s in _SECTIONS:
        if built:
            check.section(f"{size}/{name}", partial(work, check, built[0]), need_big_s if big else need_s)
        else:
            check.not_run[f"{size}/{name}"] = "The pool was not built."


def result_path(result: dict[str, Any], folder: Path) -> Path:
    """Return the path of a GPU's result: `gpu-CARD-DATE.json`."""
    card = re.sub(r"[^a-z0-9]+", "-", str(result["device"]).lower()).strip("-")
    return folder / f"gpu-{card}-{result['date']}.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write a GPU's result to its file, and print the result."""
    parser = make_parser("gpu", __doc__)
    parser.add_argument("--sizes", default="1b,8b", help=f"pool sizes among {', '.join(SHAPES)}, separated by commas")
    parser.add_argument("--budget", type=float, default=480.0, metavar="S", help="seconds for all sections")
    parser.add_argument("--pairs", type=int, default=200, help="number of training pairs of each kind")
    options = parser.parse_args(arguments)
    sizes = ["tiny"] if options.tiny else options.sizes.split(",")
    if unknown := [size for size in sizes if size not in SHAPES]:
        parser.error(f"--sizes: unknown size {unknown[0]}; choose from {', '.join(SHAPES)}")
    keep_freed_memory()  # as a run does
    device = pick_device()
    result = measure(device, sizes, options.budget, options.pairs)
    if device.type == "cuda" and not options.tiny:
        RESULTS.mkdir(exist_ok=True)
        result_path(result, RESULTS).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result) if options.json else _as_text(result))


def _as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{target['name']}: {target['value']:.2f}, {'at least' if target['at_least'] else 'at most'} {target['limit']}"
        for target in result["targets"]
    ]
    lines += [f"{name} failed: {message}" for name, message in result["errors"].items()]
    return "\n".join(lines + [f"{name} not run: {reason}" for name, reason in result["not_run"].items()])


if __name__ == "__main__":
    main()
