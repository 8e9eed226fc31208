"""How phases, methods, categories and models of a run are called on the page."""

from __future__ import annotations

from core.data.categories import find_category
from core.events import Phase
from core.results import ModelResult
from core.runs.view import RunView, Status
from core.specs import Method
from safemerge_ui.views.markup import plain_words

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

METHODS: dict[Method | str, str] = {
    "ties": "TIES",
    "dare_ties": "DARE-TIES",
    "dare_linear": "DARE",
    "slerp": "SLERP",
    "task_arithmetic": "Task arithmetic",
    "linear": "Linear",
}

STATUS_TONES: dict[Status, str] = {
    "waiting": "plain",
    "running": "info",
    "finished": "good",
    "failed": "bad",
    "cancelled": "warn",
}

SAFETY_AWARE = "Safety-aware merge"
DOMAIN_ONLY = "Domain-only merge"

_BASELINES = {"equal": "Equal weights", "evomm_expert_only": "Domain-only search"}
_SHORT = {SAFETY_AWARE: "Safety-aware", "Equal weights": "Equal", "Domain-only search": "Domain-only"}


def search_name(name: str) -> str:
    """A baseline's name in words."""
    return _BASELINES.get(name, name)


def merged_name(view: RunView) -> str:
    """What the run's own merge is called: it is safety-aware unless its spec switched that off."""
    search = view.spec.get("search") or {}
    return SAFETY_AWARE if search.get("safety", True) else DOMAIN_ONLY


def model_name(result: ModelResult, view: RunView) -> str:
    """A measured model's name in words; parents keep theirs."""
    return merged_name(view) if result.role == "merged" else search_name(result.name)


def short_name(result: ModelResult, view: RunView) -> str:
    """The name next to a mark: a word or two, for a parent the last part of its path."""
    name = model_name(result, view)
    return _SHORT.get(name) or name.rstrip("/").rsplit("/", 1)[-1]


def category_name(category: str) -> str:
    """A harm category's title, or any other category in plain words."""
    known = find_category(category)
    return known.title if known else plain_words(category)
