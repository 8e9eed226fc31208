"""Checks in which number format a run's models compute, and names the reason."""

from __future__ import annotations

from core.contracts.events import CheckRow
from core.contracts.number_formats import NumberFormat
from core.errors import SafeMergeError
from core.preflight.check_rows import RUN, failed_row, ok_row
from core.settings import Settings


def number_format_row(requested: NumberFormat, settings: Settings) -> CheckRow:
    """The row for `pool.dtype`; an error where `auto` cannot be decided on this machine."""
    from core.models.precision import choose_dtype, pick_device

    try:
        chosen = choose_dtype(requested, settings, pick_device())
    except SafeMergeError as error:
        return failed_row(RUN, "number format", error)
    return ok_row(RUN, "number format", f"{chosen.name}: {chosen.reason}")
