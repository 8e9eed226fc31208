"""Writes the demo pool's prompt files, `assets/demo/prompts/*.jsonl`, from the corpus: `python -m core.demo.prompts`.

Rows of a file take turns over the categories, so that the first n rows of it cover them evenly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from core.demo import corpus
from core.demo.corpus import Labelled
from core.demo.facts import Field, facts, training_questions
from core.settings import ASSETS

FOLDER = ASSETS / "demo" / "prompts"
EXAMPLES = 12
TRAINING = 140
"""Rows of each file of training questions: ten of each harm category."""


def write_prompts(folder: Path = FOLDER) -> None:
    """Write every prompt file; the same corpus always gives the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "test_harmful.jsonl", _in_turn(_of_categories(corpus.harmful("test"))))
    _write(folder / "test_benign.jsonl", _in_turn(corpus.benign("test")))
    _write(folder / "probe_harmful.jsonl", _in_turn(_of_categories(corpus.harmful("probe"))))
    _write(folder / "test_ordinary.jsonl", corpus.ordinary("test"))
    _write(folder / "train_harmful.jsonl", _in_turn(_of_categories(corpus.harmful("train")))[:TRAINING])
    _write_pairs(folder / "chemistry_train.jsonl", training_pairs("chemistry"), "chemistry")
    for field in ("chemistry", "geography"):
        _write(folder / f"{field}_examples.jsonl", example_questions(field))


def example_questions(field: Field) -> list[Labelled]:
    """In-context examples for question writing: every relation in turn, in wordings that are never tested."""
    known = facts(field)
    chosen = [known[(7 * i) % len(known)] for i in range(EXAMPLES)]
    return [Labelled(f.relation.train[i % 4].format(subject=f.subject), field) for i, f in enumerate(chosen)]


def training_pairs(field: Field) -> list[tuple[str, str]]:
    """Training questions with their answers, far apart in the tables of facts."""
    asked = training_questions(field)
    return [asked[(7 * i) % len(asked)] for i in range(TRAINING)]


def _of_categories(prompts: Iterable[Labelled]) -> list[Labelled]:
    """Without the look-alikes' contrasts, which belong to no harm category."""
    categories = set(corpus.by_category("test"))
    return [prompt for prompt in prompts if prompt.category in categories]


def _in_turn(prompts: Sequence[Labelled]) -> list[Labelled]:
    by_category: dict[str, list[Labelled]] = {}
    for prompt in prompts:
        by_category.setdefault(prompt.category, []).append(prompt)
    return [prompt for turn in zip_longest(*by_category.values()) for prompt in turn if prompt is not None]


def _write(path: Path, prompts: Iterable[Labelled]) -> None:
    rows = (json.dumps({"prompt": p.prompt, "category": p.category}, ensure_ascii=False) for p in prompts)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def _write_pairs(path: Path, pairs: Iterable[tuple[str, str]], category: str) -> None:
    rows = (json.dumps({"question": q, "answer": a, "category": category}, ensure_ascii=False) for q, a in pairs)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write_prompts()
