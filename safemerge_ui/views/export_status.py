"""The state of saving a candidate: what the worker does now, where the model is, or why it failed."""

from __future__ import annotations

from pathlib import Path

from core.runs.exports import ExportStatus
from safemerge_ui.views.alpha import saved_view
from safemerge_ui.views.markup import notice


def export_view(status: ExportStatus) -> str:
    """The state as a notice."""
    number = status.candidate
    match status.state:
        case "running":
            hint = f"{status.step[:1].upper()}{status.step[1:]}. The page may be closed meanwhile."
            return notice(f"Candidate {number} is being saved.", hint, "info")
        case "saved":
            return saved_view(number, Path(status.path), status.sha256)
        case "cancelled":
            return notice(f"Saving candidate {number} was cancelled.", "You can save it again at any time.", "plain")
    return notice(f"Candidate {number} could not be saved: {status.message}", status.hint)
