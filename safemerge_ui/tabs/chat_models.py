"""The models and guards that the Chat tab offers: what the run on the page merges, compares and has saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.contracts.comparison_spec import AnySpec, ComparisonSpec, any_spec_from_dict
from core.contracts.optimizers import baselines as known_baselines
from core.errors import ModelError
from core.guards.guard_names import PHRASES
from core.models.references import ModelReference, parse_reference
from core.runs.candidates import saved_candidates
from safemerge_ui.app_context import AppContext
from safemerge_ui.views.names import DOMAIN_ONLY, SAFETY_AWARE, merged_name
from safemerge_ui.watch import Watched

MERGES = (SAFETY_AWARE, DOMAIN_ONLY)
CANDIDATE = "Candidate "

Choices = dict[str, ModelReference | None]
"""Models to chat with, by label; None where the label is the model's reference."""


def model_choices(context: AppContext, watched: Watched | None) -> Choices:
    """Return the models to chat with: merges that the run has saved, then its pool, then its saved candidates."""
    saved: Choices = {}
    candidates: Choices = {}
    members = _members(_spec_on_page(context, watched))
    if watched is not None:
        places = baseline_folders() | {merged_name(watched.view): Path("merged")}
        paths = {label: watched.folder.path / place for label, place in places.items()}
        saved = {
            label: ModelReference("folder", str(path))
            for label, path in paths.items()
            if (path / "config.json").is_file()
        }
        candidates = {
            f"{CANDIDATE}{number}": ModelReference("folder", str(path))
            for number, path in saved_candidates(watched.folder).items()
        }
    return saved | dict.fromkeys(members) | candidates


def baseline_folders() -> dict[str, Path]:
    """Return where a run saves its baselines, by title; first those whose search leaves the safety data out."""
    rows = sorted(known_baselines().values(), key=lambda row: (row.uses_safety_data, not row.takes_steps))
    return {row.title: Path("baselines", row.name) for row in rows}


def default_models(labels: Sequence[str]) -> list[str | None]:
    """Return a baseline (else the first expert) and the run's merge (else the base); the third field stays empty."""
    saved = baseline_folders()
    baselines = [label for label in labels if label in saved]
    merges = [label for label in labels if label in MERGES]
    pool = [label for label in labels if not _is_saved_model(label)]
    return [(baselines or pool[1:] or pool)[0], (merges or pool)[0], None]


def resolve_model(label: str, choices: Choices, context: AppContext) -> ModelReference:
    """Return the model that a label or reference names; merges that the run has saved are local folders.

    Raises:
        ModelError: there is no such model, or the run has not saved that merge or candidate.
    """
    known = choices.get(label)
    if known is not None:
        return known
    if _is_saved_model(label):
        raise ModelError(
            f"The run on this page has not saved '{label}'.",
            "Wait until the run is finished, or select another model.",
            code="model-not-saved",
        )
    return parse_reference(label, context.settings)


def guard_choices(context: AppContext, watched: Watched | None) -> list[str]:
    """Return `phrases`, and the guard of the run on the page or of the form's first spec."""
    spec = _spec_on_page(context, watched)
    return list(dict.fromkeys([PHRASES, spec.guard if isinstance(spec, ComparisonSpec) else spec.pool.guard]))


def _is_saved_model(label: str) -> bool:
    """Whether a label stands for a model in a run's folder."""
    return label in baseline_folders() or label in MERGES or label.startswith(CANDIDATE)


def _spec_on_page(context: AppContext, watched: Watched | None) -> AnySpec:
    """The spec of the run on the page; the form's first spec if there is none."""
    if watched is None or not watched.view.spec:
        return context.default_spec
    return any_spec_from_dict(watched.view.spec, stored=True)


def _members(spec: AnySpec) -> list[str]:
    """The models that a run merges or compares."""
    if isinstance(spec, ComparisonSpec):
        return [compared.model for compared in spec.models]
    return [spec.pool.base, *(expert.model for expert in spec.pool.experts)]


def the_merge(labels: Sequence[str]) -> str:
    """Return the one label that stands for a merge of a run; empty if none or several do."""
    merges = [label for label in labels if _is_saved_model(label)]
    own = [label for label in merges if label in MERGES]
    return own[0] if len(own) == 1 else merges[0] if len(merges) == 1 else ""
