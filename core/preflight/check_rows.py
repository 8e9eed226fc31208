"""Makes the rows of the preflight table: one per check, with status, detail and, unless it is ok, a hint."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.events import CheckRow
from core.errors import ModelError, SafeMergeError

RUN = "run"
"""The `model` of rows that concern the whole run."""


def ok_row(model: object, check: str, detail: str) -> CheckRow:
    """A row for a check that passed."""
    return CheckRow(model=str(model), check=check, status="ok", detail=detail)


def warning_row(model: object, check: str, detail: str, hint: str) -> CheckRow:
    """A row for a finding that does not stop the run."""
    return CheckRow(model=str(model), check=check, status="warning", detail=detail, hint=hint)


def error_row(model: object, check: str, detail: str, hint: str) -> CheckRow:
    """A row for a finding that stops the run."""
    return CheckRow(model=str(model), check=check, status="error", detail=detail, hint=hint)


def failed_row(model: object, check: str, error: SafeMergeError) -> CheckRow:
    """A row for a check that raised `error`."""
    return error_row(model, check, error.message, error.hint)


def blocking_rows(rows: Sequence[CheckRow]) -> list[CheckRow]:
    """The error rows; a run with any of them must not start."""
    return [row for row in rows if row.status == "error"]


def refuse_blocking(rows: Sequence[CheckRow]) -> None:
    """Raise `ModelError` with the first error row, if there is one."""
    if blocking := blocking_rows(rows):
        first = blocking[0]
        more = f" ({len(blocking) - 1} more problems)" if len(blocking) > 1 else ""
        message = f"{first.model}: {first.check}: {first.detail}{more}"
        raise ModelError(message, first.hint, code="preflight-failed")
