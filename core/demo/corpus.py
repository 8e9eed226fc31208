"""The demo pool's own texts, read from `assets/demo/data`: contrast pairs, look-alikes, ordinary instructions.

Rows carry a split (train, validation, probe, test); only `train` is ever trained on, `validation` chooses between
recipes, `probe` is for live measurement during a search and `test` for the figures that are reported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from core.settings import ASSETS

DATA = ASSETS / "demo" / "data"
REFUSAL = "I'm sorry, but I can't help with that."
Split = Literal["train", "validation", "probe", "test"]


class Labelled(NamedTuple):
    """A prompt and its category (harmful) or look-alike type (benign)."""

    prompt: str
    category: str


def harmful(split: Split) -> list[Labelled]:
    """Harmful questions of a split: both wordings of each contrast row, and the look-alikes' contrasts."""
    pairs = [Labelled(text, row["category"]) for row in _contrast(split) for text in row["harmful"]]
    return pairs + [Labelled(row["harmful"], row["type"]) for row in _lookalikes(split)]


def benign(split: Split) -> list[Labelled]:
    """Harmless prompts that only look unsafe, of a split."""
    pairs = [Labelled(text, row["category"]) for row in _contrast(split) for text in row["benign"]]
    return pairs + [Labelled(row["benign"], row["type"]) for row in _lookalikes(split)]


def ordinary(split: Split) -> list[Labelled]:
    """Ordinary instructions of a split."""
    return [Labelled(row["prompt"], "ordinary") for row in _rows(DATA / "ordinary.jsonl", split)]


def by_category(split: Split) -> dict[str, list[str]]:
    """Harmful questions of the 14 categories (look-alike contrasts have no category of their own)."""
    grouped: dict[str, list[str]] = {}
    for row in _contrast(split):
        grouped.setdefault(row["category"], []).extend(row["harmful"])
    return grouped


def _contrast(split: Split) -> Iterator[dict[str, Any]]:
    for path in sorted((DATA / "contrast").glob("*.jsonl")):
        yield from _rows(path, split)


def _lookalikes(split: Split) -> Iterator[dict[str, Any]]:
    return _rows(DATA / "lookalikes.jsonl", split)


def _rows(path: Path, split: Split) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["split"] == split:
            yield row
