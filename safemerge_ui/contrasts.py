"""How the models of a run differ from one of them, for the tables of Evaluate and Audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from core.contracts.results import ModelResult
from core.evaluation.fluency import broken_among
from core.evaluation.paired_replies import Contrast, Measure, contrast
from core.runs.folder import RunFolder
from core.runs.view import RunView
from safemerge_ui.app_context import AppContext
from safemerge_ui.views.side_by_side import Contrasts


def contrasts(context: AppContext, folder: RunFolder, view: RunView, reference: str) -> Contrasts:
    """Return how each model's replies differ from the reference's, for models whose replies are stored."""
    if not reference:
        return {}
    reference_rows = context.replies.rows(folder, reference)
    by_model: dict[str, dict[Measure, Contrast]] = {}
    for model in view.models:
        if model.name != reference:
            rows = context.replies.rows(folder, model.name)
            tested = {measure: contrast(measure, rows, reference_rows) for measure in get_args(Measure)}
            by_model[model.name] = {measure: one for measure, one in tested.items() if one is not None}
    return by_model


def broken_reasons(models: Sequence[ModelResult], reference: str) -> dict[str, str]:
    """Return why each broken-looking model looks broken, by its name; the page says "Looks broken" beside it."""
    reasons = broken_among(models, reference)
    return {name: reason.removeprefix(f"{name} looks broken: ") for name, reason in reasons.items()}
