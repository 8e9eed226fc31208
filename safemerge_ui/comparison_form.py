"""The form of Evaluate and Audit as a `ComparisonSpec`: the page starts exactly what the command line can start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.results import Role
from core.contracts.spec_files import validated
from core.errors import SpecError
from safemerge_ui.fields import listed, optional, whole

FIELDS = ("guard", "prompts", "benign", "suite", "tasks", "limit", "reply_tokens")
"""The fields of both tabs, by name."""

Form = Mapping[str, Any]


def lines_of(text: str | None) -> list[str]:
    """Return the non-empty lines of a field."""
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def comparison_spec(models: Sequence[tuple[str, Role]], form: Form) -> ComparisonSpec:
    """Return the spec of a comparison.

    Args:
        models: references with their roles, in the order in which they are shown.
        form: values of `FIELDS`.

    Raises:
        SpecError: there is no model, nothing to measure, or a value is out of range.
    """
    if not models:
        raise SpecError("No model is named.", "Enter one reference per line, such as demo/aligned.", code="no-model")
    evaluation = {
        "prompts": optional(form, "prompts"),
        "benign": optional(form, "benign"),
        "suite": optional(form, "suite"),
        "tasks": listed(form["tasks"]),
        "limit": whole(form["limit"]),
        "reply_tokens": whole(form["reply_tokens"]),
    }
    if not any(evaluation[name] for name in ("prompts", "benign", "suite", "tasks")):
        raise SpecError(
            "There is nothing to measure.",
            "Name unsafe prompts, harmless prompts, a suite or tasks.",
            code="nothing-to-measure",
        )
    guard = optional(form, "guard")
    if guard is None:
        raise SpecError("The field for the guard is empty.", "Choose one; `phrases` needs no model.", code="no-guard")
    named = [{"model": model, "role": role} for model, role in models]
    return validated(ComparisonSpec, {"models": named, "guard": guard, "evaluation": evaluation})


def form_of_comparison(spec: ComparisonSpec) -> Form:
    """Return the values of `FIELDS` that read back as a comparison's settings.

    Raises:
        SpecError: the comparison measures something that the page has no field for.
    """
    measured = spec.evaluation
    form: Form = {
        "guard": spec.guard,
        **{name: getattr(measured, name) or "" for name in ("prompts", "benign", "suite")},
        "tasks": ", ".join(measured.tasks),
        "limit": measured.limit,
        "reply_tokens": measured.reply_tokens,
    }
    read = comparison_spec([(one.model, one.role) for one in spec.models], form)
    if read != spec:
        raise SpecError(
            "This comparison has settings that the page has no field for.",
            "The fields below are not those of this run.",
            code="no-field",
        )
    return form


def audit_spec(merge: str, parents: Sequence[str], form: Form) -> ComparisonSpec:
    """Return the spec that measures a published merge and its parents.

    Raises:
        SpecError: there is no merge or no parent, or as in `comparison_spec`.
    """
    if not merge.strip():
        raise SpecError("No merged model is named.", "Enter its Hub id, folder, or other reference.", code="no-merge")
    if not parents:
        raise SpecError(
            "No parent is named.", "Press Find parents, or enter the parents, one per line.", code="no-parent"
        )
    return comparison_spec([(merge.strip(), "merged"), *((parent, "parent") for parent in parents)], form)
