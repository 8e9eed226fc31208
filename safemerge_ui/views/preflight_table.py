"""The preflight table: each check in words and colour, with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.events import CheckRow
from safemerge_ui.views.markup import badge, notice, text

_TONES = {"ok": "good", "warning": "warn", "error": "bad"}
_WORDS = {"ok": "OK", "warning": "Warning", "error": "Problem"}


def preflight_table(rows: Sequence[CheckRow]) -> str:
    """The verdict in one line, then one row a check; problems come first."""
    if not rows:
        return ""
    order = {"error": 0, "warning": 1, "ok": 2}
    body = "".join(_row(row) for row in sorted(rows, key=lambda row: order[row.status]))
    return (
        f'{_verdict(rows)}<table class="sm-table sm-checks"><thead><tr><th>Status</th><th>Model</th><th>Check</th>'
        f"<th>Finding</th></tr></thead><tbody>{body}</tbody></table>"
    )


def _verdict(rows: Sequence[CheckRow]) -> str:
    errors = sum(row.status == "error" for row in rows)
    warnings = sum(row.status == "warning" for row in rows)
    if errors:
        return notice(f"{errors} of {len(rows)} checks found a problem.", "A run would fail: solve these first.")
    if warnings:
        return notice("The pool can be merged.", f"{warnings} of {len(rows)} checks ask for your attention.", "warn")
    return notice(f"The pool can be merged: all {len(rows)} checks passed.", tone="good")


def _row(row: CheckRow) -> str:
    hint = f'<div class="sm-hint">{text(row.hint)}</div>' if row.hint else ""
    return (
        f"<tr><td>{badge(_WORDS[row.status], _TONES[row.status])}</td><td class='sm-mono'>{text(row.model)}</td>"
        f"<td>{text(row.check)}</td><td>{text(row.detail)}{hint}</td></tr>"
    )
