"""Measures the demo pool's models on held-out prompts: `python -m benchmarks.demo_pool --json`.

Alignment on the harmful test prompts (intents that no training row has, all 14 categories), over-refusal on harmless
look-alikes and on ordinary instructions, accuracy on both fact suites through lm-eval, and what the question writer
writes. `--harmful` and `--benign` add prompt files of your own, measured on `demo/aligned`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from core.data.categories import CATEGORIES
from core.data.generate_safety import safety_conversation
from core.data.parsing import parse_question
from core.data.prompts import read_prompts
from core.data.question_rounds import QUESTION_TOKENS
from core.demo.prompts import FOLDER
from core.evaluation.accuracy import measure_accuracy
from core.evaluation.alignment import AlignmentReport, OverRefusalReport, measure_alignment, measure_over_refusal
from core.evaluation.statistics import wilson
from core.evaluation.suites import DEMO_TASKS
from core.guards.registry import load_guard
from core.models.generation import generate_all
from core.models.loading import load_model, load_tokenizer
from core.models.precision import choose_dtype, pick_device
from core.models.references import parse_reference
from core.settings import ASSETS, Settings, load_settings

CHAT_MODELS = ("demo/aligned", "demo/chemistry", "demo/geography")
WRITER = "demo/question-writer"
REPLY_TOKENS = 32
WRITTEN_PER_CATEGORY = 6
TASKS = ("demo_chemistry", "demo_geography")
CARD = ASSETS / "demo" / "README.md"


def _load(name: str, settings: Settings) -> tuple[Any, Any]:
    reference, device = parse_reference(name, settings), pick_device()
    dtype = choose_dtype("auto", settings, device).dtype
    return load_model(reference, settings, dtype, device), load_tokenizer(reference, settings)


def measure_chat_model(name: str, settings: Settings) -> dict[str, Any]:
    """Alignment, over-refusal, fluency and accuracy of one model."""
    model, tokenizer = _load(name, settings)
    harmful = _aligned(model, tokenizer, FOLDER / "test_harmful.jsonl", settings)
    benign = _refused(model, tokenizer, FOLDER / "test_benign.jsonl", settings)
    ordinary = _refused(model, tokenizer, FOLDER / "test_ordinary.jsonl", settings)
    accuracy = measure_accuracy(model, tokenizer, TASKS, DEMO_TASKS)
    return {
        "alignment": harmful.alignment.model_dump(),
        "lowest_category": min(harmful.by_category.items(), key=lambda item: item[1].rate)[0],
        "lowest_category_alignment": min(rate.rate for rate in harmful.by_category.values()),
        "over_refusal": benign.over_refusal.model_dump(),
        "ordinary_refused": ordinary.over_refusal.model_dump(),
        "ordinary_degenerate": ordinary.degenerate.model_dump(),
        "accuracy": {task: rate.model_dump() for task, rate in accuracy.items()},
    }


def _aligned(model: Any, tokenizer: Any, path: Path, settings: Settings) -> AlignmentReport:
    guard = load_guard("phrases", settings)
    return measure_alignment(model, tokenizer, read_prompts(path), guard, max_new_tokens=REPLY_TOKENS)


def _refused(model: Any, tokenizer: Any, path: Path, settings: Settings) -> OverRefusalReport:
    guard = load_guard("phrases", settings)
    return measure_over_refusal(model, tokenizer, read_prompts(path), guard, max_new_tokens=REPLY_TOKENS)


def measure_writer(settings: Settings) -> dict[str, Any]:
    """How much of what the question writer writes is a question in JSON, and how varied it is."""
    model, tokenizer = _load(WRITER, settings)
    asked = [category for category in CATEGORIES for _ in range(WRITTEN_PER_CATEGORY)]
    written = generate_all(
        model,
        tokenizer,
        [safety_conversation(category) for category in asked],
        max_new_tokens=QUESTION_TOKENS,
        temperature=1.0,
    )
    questions = [parse_question(text) for text in written]
    parsed = [question for question in questions if question]
    covered = Counter(category.slug for category, question in zip(asked, questions, strict=True) if question)
    return {
        "json": wilson(len(parsed), len(asked)).model_dump(),
        "distinct": wilson(len(set(parsed)), len(asked)).model_dump(),
        "categories": len(covered),
    }


def measure(settings: Settings, harmful: Path | None, benign: Path | None) -> dict[str, Any]:
    """Measure the whole pool."""
    started = time.monotonic()
    result: dict[str, Any] = {"benchmark": "demo_pool", "reply_tokens": REPLY_TOKENS, "models": {}}
    for name in CHAT_MODELS:
        result["models"][name] = measure_chat_model(name, settings)
    result["models"][WRITER] = measure_writer(settings)
    model, tokenizer = _load("demo/aligned", settings)
    if harmful:
        result["own_harmful"] = _aligned(model, tokenizer, harmful, settings).alignment.model_dump()
    if benign:
        result["own_benign"] = _refused(model, tokenizer, benign, settings).over_refusal.model_dump()
    return {**result, "seconds": time.monotonic() - started}


def as_markdown(result: dict[str, Any]) -> str:
    """The figures as the table of the demo pool's model card."""
    rows = [
        "| model | alignment | over-refusal | ordinary refused | chemistry | geography |",
        "|---|---|---|---|---|---|",
    ]
    for name in CHAT_MODELS:
        model = result["models"][name]
        cells = [model["alignment"], model["over_refusal"], model["ordinary_refused"], *model["accuracy"].values()]
        rows.append(f"| `{name}` | {' | '.join(_text(cell) for cell in cells)} |")
    writer = result["models"][WRITER]
    rows.append(
        f"\n`{WRITER}`: {_text(writer['json'])} of its replies are a question in JSON, {_text(writer['distinct'])} a "
        f"question not written before, over {writer['categories']} categories."
    )
    return "\n".join(rows) + "\n"


def _text(rate: dict[str, Any]) -> str:
    return f"{rate['rate']:.3f} [{rate['low']:.2f}, {rate['high']:.2f}] n={rate['n']}"


def write_card(result: dict[str, Any], card: Path = CARD) -> None:
    """Put the figures between the card's marks."""
    before, rest = card.read_text(encoding="utf-8").split("<!-- measured -->\n")
    after = rest.split("<!-- /measured -->")[1]
    card.write_text(f"{before}<!-- measured -->\n{as_markdown(result)}<!-- /measured -->{after}", encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_pool", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one line instead of indented text")
    parser.add_argument("--write", action="store_true", help="also put the figures into assets/demo/README.md")
    parser.add_argument("--harmful", type=Path, help="harmful prompts of your own")
    parser.add_argument("--benign", type=Path, help="harmless look-alikes of your own")
    options = parser.parse_args()
    result = measure(load_settings(), options.harmful, options.benign)
    if options.write:
        write_card(result)
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
