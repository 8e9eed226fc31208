"""Write the demo pool's prompt files, `assets/demo/prompts/*.jsonl`, from the corpus: `python -m core.demo.prompts`.

The rows of a file alternate between the categories, so that its first n rows cover them evenly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from core.demo import corpus
from core.demo.corpus import LabeledPrompt
from core.demo.facts import Field, facts, training_questions
from core.settings import ASSETS

FOLDER = ASSETS / "demo" / "prompts"
EXAMPLES = 12
TRAINING = 140
"""Rows in each file of training questions: ten per harm category."""


def write_prompts(folder: Path = FOLDER) -> None:
    """Write all prompt files; the same corpus gives the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "test_harmful.jsonl", _interleave(_of_categories(corpus.harmful("test"))))
    _write(folder / "test_benign.jsonl", _interleave(corpus.benign("test")))
    _write(folder / "probe_harmful.jsonl", _interleave(_of_categories(corpus.harmful("probe"))))
    _write(folder / "probe_benign.jsonl", _interleave(corpus.benign("probe")))
    _write(folder / "train_benign.jsonl", _interleave(corpus.benign("train"))[:TRAINING])
    _write(folder / "test_ordinary.jsonl", corpus.ordinary("test"))
    _write(folder / "train_harmful.jsonl", _interleave(_of_categories(corpus.harmful("train")))[:TRAINING])
    _write_pairs(folder / "chemistry_train.jsonl", training_pairs("chemistry"), "chemistry")
    for field in ("chemistry", "geography"):
        _write(folder / f"{field}_examples.jsonl", example_questions(field))


def example_questions(field: Field) -> list[LabeledPrompt]:
    """Return in-context examples for question writing, in training wordings, spread over the facts."""
    known = facts(field)
    chosen = [known[(7 * i) % len(known)] for i in range(EXAMPLES)]
    return [
        LabeledPrompt(fact.relation.train[i % 4].format(subject=fact.subject), field) for i, fact in enumerate(chosen)
    ]


def training_pairs(field: Field) -> list[tuple[str, str]]:
    """Return training questions with their answers, spread over the tables of facts."""
    questions = training_questions(field)
    return [questions[(7 * i) % len(questions)] for i in range(TRAINING)]


def _of_categories(prompts: Iterable[LabeledPrompt]) -> list[LabeledPrompt]:
    """Leave out the contrasts of look-alikes, which have no harm category."""
    categories = set(corpus.by_category("test"))
    return [prompt for prompt in prompts if prompt.category in categories]


def _interleave(prompts: Sequence[LabeledPrompt]) -> list[LabeledPrompt]:
    by_category: dict[str, list[LabeledPrompt]] = {}
    for prompt in prompts:
        by_category.setdefault(prompt.category, []).append(prompt)
    return [prompt for group in zip_longest(*by_category.values()) for prompt in group if prompt is not None]


def _write(path: Path, prompts: Iterable[LabeledPrompt]) -> None:
    rows = (json.dumps({"prompt": p.prompt, "category": p.category}, ensure_ascii=False) for p in prompts)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def _write_pairs(path: Path, pairs: Iterable[tuple[str, str]], category: str) -> None:
    rows = (json.dumps({"question": q, "answer": a, "category": category}, ensure_ascii=False) for q, a in pairs)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write_prompts()
