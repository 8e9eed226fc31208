"""Measure the demo pool's models on held-out prompts: `python -m benchmarks.demo_pool --json`.

It measures alignment on the harmful test prompts (all 14 categories, with intents that no training row has),
over-refusal on harmless look-alikes and on ordinary instructions, accuracy on both fact suites with lm-eval, and the
output of the question writer. `--harmful` and `--benign` add your own prompt files, measured on `demo/aligned`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.command import make_parser
from benchmarks.inputs import LoadedModel, load_demo_model
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
from core.settings import ASSETS, Settings, load_settings

CHAT_MODELS = ("demo/aligned", "demo/chemistry", "demo/geography")
WRITER = "demo/question-writer"
REPLY_TOKENS = 32
WRITTEN_PER_CATEGORY = 6
TASKS = ("demo_chemistry", "demo_geography")
CARD = ASSETS / "demo" / "README.md"


def measure_chat_model(name: str, settings: Settings) -> dict[str, Any]:
    """Measure alignment, over-refusal, broken text and accuracy of one model."""
    loaded = load_demo_model(name, settings)
    harmful = _alignment(loaded, FOLDER / "test_harmful.jsonl", settings)
    benign = _over_refusal(loaded, FOLDER / "test_benign.jsonl", settings)
    ordinary = _over_refusal(loaded, FOLDER / "test_ordinary.jsonl", settings)
    accuracy = measure_accuracy(*loaded, TASKS, DEMO_TASKS)
    return {
        "alignment": harmful.alignment.model_dump(),
        "lowest_category": min(harmful.by_category.items(), key=lambda item: item[1].rate)[0],
        "lowest_category_alignment": min(rate.rate for rate in harmful.by_category.values()),
        "over_refusal": benign.over_refusal.model_dump(),
        "ordinary_refused": ordinary.over_refusal.model_dump(),
        "ordinary_degenerate": ordinary.degenerate.model_dump(),
        "accuracy": {task: rate.model_dump() for task, rate in accuracy.items()},
    }


def _alignment(loaded: LoadedModel, path: Path, settings: Settings) -> AlignmentReport:
    guard = load_guard("phrases", settings)
    return measure_alignment(*loaded, read_prompts(path), guard, max_new_tokens=REPLY_TOKENS)


def _over_refusal(loaded: LoadedModel, path: Path, settings: Settings) -> OverRefusalReport:
    guard = load_guard("phrases", settings)
    return measure_over_refusal(*loaded, read_prompts(path), guard, max_new_tokens=REPLY_TOKENS)


def measure_writer(settings: Settings) -> dict[str, Any]:
    """Measure which share of the question writer's replies is a question in JSON, and which share is distinct."""
    model, tokenizer = load_demo_model(WRITER, settings)
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
    """Measure the whole pool; `harmful` and `benign` are further prompt files."""
    started = time.monotonic()
    result: dict[str, Any] = {"benchmark": "demo_pool", "reply_tokens": REPLY_TOKENS, "models": {}}
    for name in CHAT_MODELS:
        result["models"][name] = measure_chat_model(name, settings)
    result["models"][WRITER] = measure_writer(settings)
    if harmful or benign:
        aligned = load_demo_model("demo/aligned", settings)
        if harmful:
            result["own_harmful"] = _alignment(aligned, harmful, settings).alignment.model_dump()
        if benign:
            result["own_benign"] = _over_refusal(aligned, benign, settings).over_refusal.model_dump()
    return {**result, "seconds": time.monotonic() - started}


def as_markdown(result: dict[str, Any]) -> str:
    """Return the figures as the table of the demo pool's model card."""
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
    """Write the figures between the `measured` marks of the card."""
    before, rest = card.read_text(encoding="utf-8").split("<!-- measured -->\n")
    after = rest.split("<!-- /measured -->")[1]
    card.write_text(f"{before}<!-- measured -->\n{as_markdown(result)}<!-- /measured -->{after}", encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = make_parser("demo_pool", __doc__, tiny=False)
    parser.add_argument("--write", action="store_true", help="also write the figures into assets/demo/README.md")
    parser.add_argument("--harmful", type=Path, help="your own file of harmful prompts")
    parser.add_argument("--benign", type=Path, help="your own file of harmless look-alikes")
    options = parser.parse_args()
    result = measure(load_settings(), options.harmful, options.benign)
    if options.write:
        write_card(result)
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
