"""What the benchmark commands share: their options, and the facts about the machine in their results."""

from __future__ import annotations

import argparse
from typing import Any


def make_parser(name: str, description: str | None, *, tiny: bool = True) -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.NAME` with `--json`, and `--tiny` unless the benchmark lacks it."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    if tiny:
        parser.add_argument("--tiny", action="store_true", help="use random weights: takes seconds, measures nothing")
    return parser


def machine_facts(model: Any) -> dict[str, Any]:
    """Return the number format of `model` (`dtype`) and the number of processor threads (`threads`)."""
    import torch

    return {"dtype": str(model.dtype).removeprefix("torch."), "threads": torch.get_num_threads()}
