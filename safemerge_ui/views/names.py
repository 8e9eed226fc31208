"""Names on the page: phases, methods, optimizers, categories and models of a run.

Methods, optimizers and baselines have theirs in the tables of `core.contracts`, which are read at each call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.contracts.events import Phase
from core.contracts.merge_methods import METHODS, method_title
from core.contracts.optimizers import DEFAULT_OPTIMIZER, EQUAL, OPTIMIZERS, ObjectiveMode, baselines
from core.contracts.results import WITHOUT, ModelResult, Role
from core.contracts.run_spec import Memory, Vocabulary
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

VOCABULARIES: dict[Vocabulary, str] = {"refuse": "Refuse", "base": "Keep the base's rows"}

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

STATUS_TITLES: dict[Status, str] = {
    "waiting": "Waiting",
    "running": "Running",
    "finished": "Finished",
    "failed": "Failed",
    "cancelled": "Stopped",
}
"""How the page names a status: what the button Stop ends is stopped."""

SAFETY_AWARE = "Safety-aware merge"
DOMAIN_ONLY = "Domain-only merge"

_SAFETY_AWARE_SHORT = "Safety-aware"
_SHORT_PLAIN = {"Published parameters": "Published", "Default parameters": "Defaults"}

ROLES: dict[Role, tuple[str, str]] = {
    "parent": ("Parent", "plain"),
    "baseline": ("Baseline", "warn"),
    "merged": ("Merged", "good"),
    "model": ("Model", "info"),
}
"""The title of each role, with the tone of its badge."""


def is_audit(view: RunView) -> bool:
    """Whether a comparison is an audit: a published merge beside its parents."""
    return view.is_comparison and any(model.get("role") == "merged" for model in view.spec["models"])


def search_name(name: str, method: str = "") -> str:
    """A baseline's title; a name that no row of the table has stays as it is.

    Args:
        name: of the baseline.
        method: `search.method` of the run; for a published one the plain merge has its own parameters.
    """
    if name.startswith(WITHOUT):
        return f"Without {name.removeprefix(WITHOUT)}"
    if name == EQUAL and method in METHODS and METHODS[method].plain_title:
        return METHODS[method].plain_title
    known = baselines().get(name)
    return known.title if known else name


def optimizer_title(name: str) -> str:
    """The title of an optimizer, or of the baseline of that name."""
    known = OPTIMIZERS.get(name)
    return known.title if known else search_name(name)


def phases(view: RunView) -> tuple[tuple[Phase, str], ...]:
    """The phases of a run in order, with their names."""
    return tuple(phase for phase in PHASES if not view.is_comparison or phase[0] in COMPARISON_PHASES)


def is_safety_aware(search: Mapping[str, Any]) -> bool:
    """Whether a spec's search uses safety data: not where that is switched off, nor with some optimizers."""
    known = OPTIMIZERS.get(search.get("optimizer", DEFAULT_OPTIMIZER))
    return bool(search.get("safety", True)) and (known is None or known.uses_safety_data)


def merged_name(view: RunView) -> str:
    """The title of the run's own merge: safety-aware where its search uses safety data."""
    return SAFETY_AWARE if is_safety_aware(view.spec.get("search") or {}) else DOMAIN_ONLY


def search_facts(search: Mapping[str, Any]) -> list[str]:
    """A spec's search in a few words: method, optimizer, and the settings that the optimizer reads."""
    name = search.get("optimizer", DEFAULT_OPTIMIZER)
    row = OPTIMIZERS.get(name, OPTIMIZERS[DEFAULT_OPTIMIZER])
    method, mention = search.get("method", ""), row.mention if name in OPTIMIZERS else name
    facts = [] if row.own_method else [method_title(method)]
    facts += [mention] if mention else []
    if "temperature" in row.options:
        facts.append(f"temperature {search.get('temperature', 1.0):g}")
    return [*facts, *_step_facts(search)] if row.takes_steps else facts


def _step_facts(search: Mapping[str, Any]) -> list[str]:
    """Budget and objective of a search that scores candidates by their losses."""
    facts, objective = [f"{search.get('steps')} steps"], search.get("objective", "weighted")
    if objective == "constraint":
        facts.append(f"safety loss within {search.get('safety_tolerance'):g} of the best parent")
    else:
        facts.append(f"alpha {search.get('alpha')}")
    if objective not in ("constraint", "weighted"):
        facts.append(OBJECTIVES[objective].lower())
    return facts


def model_name(result: ModelResult, view: RunView) -> str:
    """A measured model's title; parents and compared models keep their names."""
    if view.is_comparison:
        return result.name
    return merged_name(view) if result.role == "merged" else search_name(result.name, _method(view))


def short_name(result: ModelResult, view: RunView) -> str:
    """The name next to a mark in a chart: a word or two; of a parent the last part of its path."""
    name = model_name(result, view)
    if result.name.startswith(WITHOUT):
        return f"Without {result.name.rstrip('/').rsplit('/', 1)[-1]}"
    if name == SAFETY_AWARE:
        return _SAFETY_AWARE_SHORT
    if result.name == EQUAL and name in _SHORT_PLAIN:
        return _SHORT_PLAIN[name]
    known = None if view.is_comparison or result.role != "baseline" else baselines().get(result.name)
    return known.short if known else _last_part(name, [model_name(model, view) for model in view.models])


def _method(view: RunView) -> str:
    return str((view.spec.get("search") or {}).get("method", ""))


def _last_part(name: str, names: Sequence[str]) -> str:
    """The last part of a path, with the part before it where other names have the same last part."""
    parts = name.rstrip("/").split("/")
    alike = [other for other in names if other.rstrip("/").split("/")[-1] == parts[-1]]
    return "/".join(parts[-2:]) if len(alike) > 1 else parts[-1]


def category_name(category: str) -> str:
    """A harm category's title; of any other category its name with spaces."""
    known = find_category(category)
    return known.title if known else plain_words(category)
