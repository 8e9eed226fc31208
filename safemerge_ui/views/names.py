"""How phases, searches and models of a run are called on the page."""

from __future__ import annotations

from core.events import Phase
from core.results import ModelResult
from core.runs.view import Status

PHASES: tuple[tuple[Phase, str], ...] = (
    ("preflight", "Checks"),
    ("loading", "Load"),
    ("data", "Data"),
    ("parents", "Parents"),
    ("search", "Search"),
    ("baselines", "Baselines"),
    ("evaluation", "Evaluate"),
    ("export", "Save"),
)

STATUS_TONES: dict[Status, str] = {
    "waiting": "plain",
    "running": "info",
    "finished": "good",
    "failed": "bad",
    "cancelled": "warn",
}

_MODELS = {
    "merged": "Safety-aware merge",
    "equal": "Equal weights",
    "evomm_expert_only": "Domain-only search",
}


def model_name(name: str) -> str:
    """A result's name in words: baselines are spelled out, parents keep theirs."""
    return _MODELS.get(name, name)


def short_name(result: ModelResult) -> str:
    """The name next to a mark: the last part of a model's path."""
    return _MODELS.get(result.name) or result.name.rstrip("/").rsplit("/", 1)[-1]
