"""Read the demo pool's own texts from `assets/demo/data`: contrast pairs, look-alikes and ordinary instructions.

Each row has a split: `train` trains the adapters, `validation` selects training recipes, `probe` measures candidates
during a search, and `test` gives the reported figures.
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


class LabeledPrompt(NamedTuple):
    """A prompt with its harm category or its type of look-alike."""

    prompt: str
    category: str


def harmful(split: Split) -> list[LabeledPrompt]:
    """Return the harmful questions of a split: both wordings of each contrast row, and the look-alikes' contrasts."""
    pairs = [LabeledPrompt(text, row["category"]) for row in _contrast(split) for text in row["harmful"]]
    return pairs + [LabeledPrompt(row["harmful"], row["type"]) for row in _lookalikes(split)]


def benign(split: Split) -> list[LabeledPrompt]:
    """Return the harmless prompts of a split that look unsafe."""
    pairs = [LabeledPrompt(text, row["category"]) for row in _contrast(split) for text in row["benign"]]
    return pairs + [LabeledPrompt(row["benign"], row["type"]) for row in _lookalikes(split)]


def ordinary(split: Split) -> list[LabeledPrompt]:
    """Return the ordinary instructions of a split."""
    return [LabeledPrompt(row["prompt"], "ordinary") for row in _rows(DATA / "ordinary.jsonl", split)]


def by_category(split: Split) -> dict[str, list[str]]:
    """Return the harmful questions of each of the 14 categories; contrasts of look-alikes have no category."""
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
