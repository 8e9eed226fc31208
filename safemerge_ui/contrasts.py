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
    """How each model's replies differ from the reference's, where both keep theirs."""
    if not reference:
        return {}
    others = context.replies.rows(folder, reference)
    found: dict[str, dict[Measure, Contrast]] = {}
    for model in view.models:
        if model.name != reference:
            rows = context.replies.rows(folder, model.name)
            tested = {measure: contrast(measure, rows, others) for measure in get_args(Measure)}
            found[model.name] = {measure: one for measure, one in tested.items() if one is not None}
    return found


def looks_broken(models: Sequence[ModelResult], reference: str) -> dict[str, str]:
    """Name -> why, of the models that look broken; without the words that say so, which stand beside it."""
    found = broken_among(models, reference)
    return {name: reason.removeprefix(f"{name} looks broken: ") for name, reason in found.items()}
