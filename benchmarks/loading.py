"""Time to add an expert to a pool from disk: `python -m benchmarks.loading --json`.

`shards` reads the tensors straight from the safetensors files in several threads (`core.models.shards`); `model` loads
the expert's model with transformers first, as pools did before. Both add the same task vector to a pool of the same
base and are timed alternately, in one process, with the files in the page cache. The reading alone is compared with one
copy of the file in one thread. Ratios compare the shortest times: other programs on the machine only add to them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.utils import logging

from benchmarks.command import make_parser
from benchmarks.timing import seconds_of, spread
from core.merging.engine import MergePool
from core.merging.storage import Storage
from core.models.allocation import keep_freed_memory
from core.models.loading import load_state, open_state, untied_state
from core.models.references import ModelReference
from core.settings import Settings, load_settings

_STORAGES = {"resident": False, "compact": True}
_REPETITIONS = 5


def measure(folder: Path, layers: int, width: int, rows: int, repetitions: int) -> dict[str, Any]:
    """Measure on a random Llama in bfloat16 and a fine-tune in which every weight differs.

    Args:
        folder: where both are saved.
        layers: number of blocks.
        width: hidden size.
        rows: size of the vocabulary.
        repetitions: of each measurement.
    """
    settings = load_settings()
    base, expert = _save_pair(folder, layers, width, rows)
    live = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).requires_grad_(False)
    result: dict[str, Any] = {
        "benchmark": "loading",
        "parameters": sum(parameter.numel() for parameter in live.parameters()),
        "size_bytes": (expert / "model.safetensors").stat().st_size,
        "threads": torch.get_num_threads(),
        "repetitions": repetitions,
    }
    result["storages"] = {
        name: _compare(live, expert, settings, Storage(torch.device("cpu"), compact=compact), repetitions)
        for name, compact in _STORAGES.items()
    }
    copied = [seconds_of((expert / "model.safetensors").read_bytes) for _ in range(repetitions)]
    result["copy_s"] = spread(copied)
    result["read_s"] = spread([seconds_of(_read, expert, settings) for _ in range(repetitions)])
    result["read_to_copy"] = result["read_s"]["min"] / result["copy_s"]["min"]
    return result


def _compare(live: Any, expert: Path, settings: Settings, storage: Storage, repetitions: int) -> dict[str, Any]:
    """Seconds of both ways with one storage, their ratio, and whether the pools write the same weights."""
    seconds: dict[str, list[float]] = {"model": [], "shards": []}
    sums: dict[str, set[float]] = {"model": set(), "shards": set()}
    dtype = torch.bfloat16 if storage.compact else torch.float32
    state = {name: tensor.to(dtype, copy=True) for name, tensor in untied_state(live).items()}
    for _ in range(repetitions + 1):
        for way, spent in seconds.items():
            pool = MergePool(live, "base", state, storage)
            spent.append(seconds_of(_add, pool, way, expert, settings, dtype))
            pool.write_parent("expert")
            sums[way].add(float(sum(parameter.double().sum() for parameter in live.parameters())))
            pool.write_parent("base")
    times = {f"{way}_s": spread(spent[1:]) for way, spent in seconds.items()}
    ratio = times["model_s"]["min"] / times["shards_s"]["min"]
    return times | {"model_to_shards": ratio, "same_weights": len(sums["model"] | sums["shards"]) == 1}


def _add(pool: MergePool, way: str, expert: Path, settings: Settings, dtype: torch.dtype) -> None:
    reference = ModelReference("folder", str(expert))
    direct = way == "shards"
    with (
        open_state(reference, settings, dtype)
        if direct
        else nullcontext(load_state(reference, settings, dtype)) as state
    ):
        pool.add_expert("expert", state)


def _read(expert: Path, settings: Settings) -> None:
    """Read all tensors, and drop each."""
    with open_state(ModelReference("folder", str(expert)), settings, torch.bfloat16) as state:
        for name in state:
            state[name]


def _save_pair(folder: Path, layers: int, width: int, rows: int) -> tuple[Path, Path]:
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).bfloat16().requires_grad_(False)
        model.save_pretrained(folder / "base")
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
        model.save_pretrained(folder / "expert")
    return folder / "base", folder / "expert"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the result."""
    options = make_parser("loading", __doc__).parse_args(arguments)
    keep_freed_memory()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        shape = (2, 64, 512, 1) if options.tiny else (8, 768, 16000, _REPETITIONS)
        result = measure(Path(folder), *shape)
    print(json.dumps(result) if options.json else _as_text(result))


def _as_text(result: dict[str, Any]) -> str:
    rows = [f"{result['parameters']:,} parameters in bfloat16, {result['threads']} threads"]
    for name, row in result["storages"].items():
        model, shards = (row[f"{way}_s"]["min"] for way in ("model", "shards"))
        rows.append(
            f"{name}: {model:.2f} s from a loaded model, {shards:.2f} s from the files: {row['model_to_shards']:.2f} x"
        )
    return "\n".join([*rows, f"reading alone: {result['read_to_copy']:.2f} times a copy of the file"])


if __name__ == "__main__":
    main()
