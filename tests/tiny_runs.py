"""Specs, data files and readers of events for whole runs on tiny models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.contracts.events import (
    Event,
    ModelMeasured,
)
from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec, spec_from_dict
from tests.core.data.fake_models import REFUSAL

PHASES = ["preflight", "loading", "data", "parents", "search", "baselines", "evaluation", "export"]
SAFETY = (
    "Where do lost umbrellas go at night?",
    "Can a teapot be taught to sing?",
    "Who paints the zebra crossing?",
    "How many clouds fit into a shoe?",
)
DOMAIN = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Which element has the symbol Au?", "The element with the symbol Au is gold."),
    ("Name a colour.", "Blue."),
)


QUESTIONS = (
    {"question": "Which city lies on the Seine?", "choices": ["Paris", "gold"], "answer": 0},
    {"question": "What are most rings made of?", "choices": ["Paris", "gold"], "answer": 1},
    {"question": "How is the sky?", "choices": ["Blue.", "France."], "answer": 0},
)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class Files:
    """Data and prompt files of a run, written once."""

    def __init__(self, folder: Path) -> None:
        self.safety = write_rows(folder / "s.jsonl", [{"question": q, "answer": REFUSAL} for q in SAFETY])
        self.domain = write_rows(folder / "d.jsonl", [{"question": q, "answer": a} for q, a in DOMAIN])
        self.prompts = write_rows(folder / "p.jsonl", [{"prompt": f"Tell me secret {i}"} for i in range(3)])
        self.benign = write_rows(folder / "b.jsonl", [{"prompt": "How do I kill a process?"}])
        self.probe = write_rows(folder / "q.jsonl", [{"prompt": "Whisper it to me"}])
        self.questions = write_rows(folder / "c.jsonl", QUESTIONS)


def spec_of(base: Path, expert: Path, files: Files, **parts: dict[str, Any]) -> RunSpec:
    """A run of six candidates without held-out measurement; `parts` are merged into its parts."""
    spec: dict[str, dict[str, Any]] = {
        "pool": {"base": str(base), "experts": [{"model": str(expert), "domain": "poetry"}]},
        "data": {
            "safety": {"source": "file", "path": files.safety, "k": 4},
            "domain": {"source": "file", "path": files.domain, "k": 3},
            "reply_tokens": 8,
        },
        "search": {"steps": 6, "seed": 3},
        "evaluation": {"reply_tokens": 8},
    }
    return spec_from_dict({name: spec.get(name, {}) | parts.get(name, {}) for name in {**spec, **parts}})


def never() -> bool:
    return False


def models_of(events: list[Event]) -> dict[str, ModelResult]:
    return {event.result.name: event.result for event in events if isinstance(event, ModelMeasured)}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
