"""The history: every run with its status, results, folder, and buttons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from core.contracts.merge_methods import method_title
from core.contracts.results import ModelResult
from core.runs.summaries import RunSummary
from safemerge_ui.views.markup import badge, duration, empty, percent, text
from safemerge_ui.views.names import STATUS_TITLES, STATUS_TONES


@dataclass(frozen=True)
class RunRow:
    """A run of the history; `merged` holds the measurements of its merged model, if there are any."""

    summary: RunSummary
    merged: ModelResult | None = None


def history_view(rows: Sequence[RunRow], current: str = "") -> str:
    """Return one card per run, in the given order; `current` is the run on the page."""
    if not rows:
        return empty("No runs yet.", "A run appears here when it is launched, and stays until you delete it.")
    return f'<div class="sm-history">{"".join(_card(row, current) for row in rows)}</div>'


def _card(row: RunRow, current: str) -> str:
    run = row.summary
    on_page = badge("On this page", "info") if run.run_id == current else ""
    status = badge(STATUS_TITLES[run.status], STATUS_TONES[run.status])
    head = f'{status}<b class="sm-mono">{text(run.run_id)}</b>{on_page}'
    pool = (
        f'<p class="sm-mono sm-pool">{text((" · " if run.kind == "comparison" else " + ").join(run.pool))}</p>'
        if run.pool
        else ""
    )
    message = f'<p class="sm-hint">{text(run.message)}</p>' if run.message else ""
    return (
        f'<article class="sm-run"><header>{head}</header>{pool}{message}<div class="sm-facts">{_facts(row)}</div>'
        f'<p class="sm-files">{_files(row)}</p><footer>{_buttons(run)}</footer></article>'
    )


def _facts(row: RunRow) -> str:
    run, merged = row.summary, row.merged
    facts = [
        ("Started", _when(run.started_at)),
        ("Kind", "Comparison") if run.kind == "comparison" else ("Method", method_title(run.method) or "–"),
        ("Took", "–" if run.elapsed_s is None else duration(run.elapsed_s)),
    ]
    if run.best_objective is not None:
        facts.append(("Best objective", f"{run.best_objective:.3f}"))
    if merged is not None:
        alignment = merged.alignment.rate if merged.alignment else None
        facts += [("Alignment", percent(alignment)), ("Accuracy", percent(merged.mean_accuracy))]
    return "".join(f"<div><b>{text(value)}</b><span>{name}</span></div>" for name, value in facts)


def _files(row: RunRow) -> str:
    files = f"<span>Run folder: <code>{text(row.summary.path)}</code></span>"
    if row.merged is not None:
        files += "<span>Measurements: <code>result.json</code></span>"
        if (row.summary.path / "merged").is_dir():
            files += "<span>Merged model: <code>merged</code></span>"
    return files


def _buttons(run: RunSummary) -> str:
    name = text(run.run_id)
    over = run.status in ("finished", "failed", "cancelled")
    buttons = [f'<button type="button" class="sm-link" data-open="{name}">{"Open" if over else "Follow"}</button>']
    if run.status in ("failed", "cancelled"):
        buttons.append(f'<button type="button" class="sm-link" data-resume="{name}">Resume</button>')
    if over:
        buttons.append(f'<button type="button" class="sm-link sm-danger" data-delete="{name}">Delete</button>')
    return "".join(buttons)


def _when(at: float | None) -> str:
    return "not yet" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
