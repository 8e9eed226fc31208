"""How phases, methods, categories and models of a run are called on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.contracts.events import Phase
from core.contracts.merge_methods import REGISTERED
from core.contracts.results import WITHOUT, ModelResult, Role
from core.contracts.run_spec import Comparison, Memory, MergeMethod, ObjectiveMode, Optimizer, Vocabulary
from core.data.categories import find_category
from core.runs.view import RunView, Status
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

COMPARISON_PHASES: tuple[Phase, ...] = ("preflight", "evaluation")

METHODS: dict[MergeMethod | str, str] = {
    "ties": "TIES",
    "dare_ties": "DARE-TIES",
    "dare_linear": "DARE",
    "slerp": "SLERP",
    "task_arithmetic": "Task arithmetic",
    "linear": "Linear",
    **{name: facts.title for name, facts in REGISTERED.items() if facts.most != 1},
}
"""The six with a fast path first; one that copies a single model is left out."""

VOCABULARIES: dict[Vocabulary, str] = {"refuse": "Refuse", "base": "Keep the base's rows"}

OPTIMIZERS: dict[Optimizer | str, str] = {
    "evomm": "EvoMM",
    "evomm_surrogate": "EvoMM with a surrogate",
    "bayes": "Bayesian optimization",
    "cocktail": "LM-Cocktail",
    "grid": "Grid search",
}

MEMORY: dict[Memory, str] = {
    "auto": "Fastest that fits",
    "resident": "In float32 beside the live model",
    "streamed": "In float32 in host memory",
    "compact": "In the checkpoints' own format",
}

OBJECTIVES: dict[ObjectiveMode | str, str] = {
    "weighted": "Weighted sum",
    "pareto": "Pareto front",
    "constraint": "Keep alignment",
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

_BASELINES: dict[Comparison | str, str] = {
    "equal": "Equal weights",
    "grid": "Grid search",
    "evomm_expert_only": "Domain-only search",
    "cocktail": "LM-Cocktail, both data",
    "cocktail_expert_only": "LM-Cocktail, domain data",
    "evomm_surrogate": "EvoMM with a surrogate",
    "bayes": "Bayesian optimization",
}
_SHORT = {
    SAFETY_AWARE: "Safety-aware",
    "Equal weights": "Equal",
    "Grid search": "Grid",
    "Domain-only search": "Domain-only",
    "LM-Cocktail, both data": "Cocktail",
    "LM-Cocktail, domain data": "Cocktail, domain",
    "EvoMM with a surrogate": "Surrogate",
    "Bayesian optimization": "Bayesian",
}


ROLES: dict[Role, tuple[str, str]] = {
    "parent": ("Parent", "plain"),
    "baseline": ("Baseline", "warn"),
    "merged": ("Merged", "good"),
    "model": ("Model", "info"),
}
"""What a model is to the others, with the tone of its badge."""


def is_audit(view: RunView) -> bool:
    """Whether a comparison is of a published merge with its parents."""
    return view.is_comparison and any(model.get("role") == "merged" for model in view.spec["models"])


def search_name(name: str) -> str:
    """A baseline's name in words."""
    if name.startswith(WITHOUT):
        return f"Without {name.removeprefix(WITHOUT)}"
    return _BASELINES.get(name, name)


def phases(view: RunView) -> tuple[tuple[Phase, str], ...]:
    """The phases that a run goes through, in order, with their names."""
    return tuple(phase for phase in PHASES if not view.is_comparison or phase[0] in COMPARISON_PHASES)


def is_safety_aware(search: Mapping[str, Any]) -> bool:
    """Whether a spec's search looks at safety data: not when it is switched off, and a grid never does."""
    return bool(search.get("safety", True)) and search.get("optimizer") != "grid"


def merged_name(view: RunView) -> str:
    """What the run's own merge is called: safety-aware when safety data had a part in it."""
    return SAFETY_AWARE if is_safety_aware(view.spec.get("search") or {}) else DOMAIN_ONLY


def search_facts(search: Mapping[str, Any]) -> list[str]:
    """How a spec's search goes: method, optimiser and the numbers that matter to it."""
    method = METHODS.get(search.get("method", ""), "")
    optimizer = search.get("optimizer", "evomm")
    if optimizer == "grid":
        return [method, OPTIMIZERS["grid"]]
    if optimizer == "cocktail":
        return [OPTIMIZERS["cocktail"], f"temperature {search.get('temperature', 1.0):g}"]
    how = {"evomm_surrogate": ["with a surrogate"], "bayes": [OPTIMIZERS["bayes"]]}.get(optimizer, [])
    facts = [method, *how, f"{search.get('steps')} steps", f"alpha {search.get('alpha')}"]
    objective = search.get("objective", "weighted")
    if objective == "constraint":
        facts[-1] = f"safety loss within {search.get('safety_tolerance'):g} of the best parent"
    elif objective != "weighted":
        facts.append(OBJECTIVES[objective].lower())
    return [*facts, *(["raced"] if search.get("racing") else [])]


def model_name(result: ModelResult, view: RunView) -> str:
    """A measured model's name in words; parents keep theirs, and so do models that are compared."""
    if view.is_comparison:
        return result.name
    return merged_name(view) if result.role == "merged" else search_name(result.name)


def short_name(result: ModelResult, view: RunView) -> str:
    """The name next to a mark: a word or two, for a parent the last part of its path."""
    name = model_name(result, view)
    if result.name.startswith(WITHOUT):
        return f"Without {result.name.rstrip('/').rsplit('/', 1)[-1]}"
    return _SHORT.get(name) or _last_part(name, [model_name(model, view) for model in view.models])


def _last_part(name: str, names: Sequence[str]) -> str:
    """The last part of a path, with the one before it where other names end alike."""
    parts = name.rstrip("/").split("/")
    alike = [other for other in names if other.rstrip("/").split("/")[-1] == parts[-1]]
    return "/".join(parts[-2:]) if len(alike) > 1 else parts[-1]


def category_name(category: str) -> str:
    """A harm category's title, or any other category in plain words."""
    known = find_category(category)
    return known.title if known else plain_words(category)
