"""The table of checks before a run: the result of each check, with what to do about a problem."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.events import CheckRow
from safemerge_ui.views.markup import badge, notice, text

_TONES = {"ok": "good", "warning": "warn", "error": "bad"}
_LABELS = {"ok": "OK", "warning": "Warning", "error": "Problem"}


def preflight_table(rows: Sequence[CheckRow]) -> str:
    """Return a summary and one row per check, problems first."""
    if not rows:
        return ""
    order = {"error": 0, "warning": 1, "ok": 2}
    body = "".join(_row(row) for row in sorted(rows, key=lambda row: order[row.status]))
    return (
        f'{_summary(rows)}<table class="sm-table sm-checks"><thead><tr><th>Status</th><th>Model</th><th>Check</th>'
        f"<th>Finding</th></tr></thead><tbody>{body}</tbody></table>"
    )


def _summary(rows: Sequence[CheckRow]) -> str:
    errors = sum(row.status == "error" for row in rows)
    warnings = sum(row.status == "warning" for row in rows)
    if errors:
        return notice(
            f"{errors} of {len(rows)} checks found a problem.", "A run would fail. Solve these problems first."
        )
    if warnings:
        return notice("A run can start.", f"{warnings} of {len(rows)} checks have a warning.", "warn")
    return notice(f"A run can start: all {len(rows)} checks passed.", tone="good")


def _row(row: CheckRow) -> str:
    hint = f'<div class="sm-hint">{text(row.hint)}</div>' if row.hint else ""
    return (
        f"<tr><td>{badge(_LABELS[row.status], _TONES[row.status])}</td><td class='sm-mono'>{text(row.model)}</td>"
        f"<td>{text(row.check)}</td><td>{text(row.detail)}{hint}</td></tr>"
    )
