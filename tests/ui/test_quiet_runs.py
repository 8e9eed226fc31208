"""A run without events for a while, such as one whose worker was stopped, says for how long."""

from __future__ import annotations

from core.runs.view import fold
from safemerge_ui.views.progress import QUIET_S, quiet_s, run_line
from tests.ui.golden import golden_events, golden_running


def test_a_quiet_run_says_for_how_long() -> None:
    view = fold(golden_running())
    last = view.updated_at or 0.0
    assert "no event for" not in run_line(view, "r", last + QUIET_S - 1)
    line = run_line(view, "r", last + 185)
    assert "no event for 3 min 05 s" in line and "Stop it" in line and "resume" in line


def test_a_run_that_is_over_is_not_quiet() -> None:
    view = fold(golden_events())
    assert quiet_s(view, (view.updated_at or 0.0) + 1000) == 0
