"""Build a report from a run's record: its title, headlines and sections, in order.

The same record gives the same document. Sections without content are left out; the section `missing` lists missing
files and their consequences.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.results import ModelResult
from core.report import charts
from core.report.audit_section import broken_notices, cost_blocks, over_refusal_notices, verdict_blocks
from core.report.data_section import data_blocks
from core.report.document import Block, BulletList, Cell, Document, Notice, Paragraph, Section, Tone
from core.report.limits_section import NOT_SAFE, guard_limits, guard_of, limit_blocks, method_line
from core.report.merge_section import machine_blocks, merge_blocks, pool_blocks, started_text
from core.report.paired_section import comparison_blocks
from core.report.reply_section import reply_blocks
from core.report.result_tables import (
    agreement_table,
    category_table,
    detail_table,
    measured_table,
    rate_cell,
    task_table,
)
from core.report.run_record import RunRecord
from core.report.search_section import search_blocks


def build_report(record: RunRecord) -> Document:
    """Return the whole report of a run; the run may have failed or still be running."""
    status, tone = _status(record)
    sections = (
        Section("ending", "How the run ended", _ending(record)),
        Section("over-refusal", "Refusals of harmless prompts", over_refusal_notices(record.models)),
        Section("verdict", "Verdict", verdict_blocks(record)),
        Section("measurements", "Measurements", _measurements(record)),
        Section("left-out", "Without each expert", cost_blocks(record)),
        Section("pairwise", "Prompt-by-prompt comparison", comparison_blocks(record)),
        Section("categories", "By category", _categories(record.models)),
        Section("replies", "Replies", reply_blocks(record)),
        Section("models", "Models and settings", pool_blocks(record)),
        Section("merges", "Merges", merge_blocks(record)),
        Section("search", "Search", _search(record)),
        Section("training-data", "Training data", data_blocks(record)),
        Section("warnings", "Warnings", _warnings(record)),
        Section("machine", "Machine and weights", machine_blocks(record)),
        Section("limits", "Limits", limit_blocks(record)),
        Section("missing", "Missing from this report", _missing(record)),
    )
    return Document(
        title=_title(record),
        subtitle=f"Run {record.run_id}, started {started_text(record)}",
        status=status,
        tone=tone,
        headlines=_headlines(record),
        sections=tuple(section for section in sections if section.blocks),
    )


def _title(record: RunRecord) -> str:
    spec = record.spec
    if spec is None:
        return f"Run {record.run_id}"
    if isinstance(spec, ComparisonSpec):
        merged = [compared.model for compared in spec.models if compared.role == "merged"]
        count = len(spec.models)
        return f"{merged[0]} and its parents" if merged else f"Measurements of {count} model{'s' * (count > 1)}"
    return "Merge of " + ", ".join((spec.pool.base, *(expert.model for expert in spec.pool.experts)))


def _status(record: RunRecord) -> tuple[str, Tone]:
    match record.view.status:
        case "finished":
            return "finished", "plain"
        case "failed":
            return "failed", "bad"
        case "cancelled":
            return "stopped", "warn"
    return ("running", "warn") if record.running else ("interrupted", "bad")


def _ending(record: RunRecord) -> tuple[Block, ...]:
    """Say why a run has not finished, and how far it got."""
    view = record.view
    match view.status:
        case "finished":
            return ()
        case "failed":
            text = f"The run failed: {view.message} {view.hint}".strip()
        case "cancelled":
            text = f"The run was stopped. {'' if view.message == 'Stopped.' else view.message}".strip()
        case _ if record.running:
            text = "The run is still running. This report shows its results so far."
        case _:
            text = "The run was interrupted: no process is working on it. Resume it with core resume."
    _, tone = _status(record)
    phase = f"Last phase: {view.phase}." if view.phase else "The run had not started."
    count = sum(not model.not_measured for model in record.models)
    measured = f"Models measured: {count}." if count else "No model was measured."
    return (Notice(tone, text), Paragraph(f"{phase} {measured}"))


def _headlines(record: RunRecord) -> tuple[tuple[str, Cell], ...]:
    """Return the merge's rates, and the alignment of its safest parent."""
    merged = record.merged
    if merged is None:
        return ()
    parents = [model for model in record.models if model.role == "parent" and model.alignment]
    safest = max(parents, key=lambda model: model.alignment.rate if model.alignment else 0.0, default=None)
    accuracy = [(f"Accuracy, {task}", rate_cell(rate)) for task, rate in list(merged.accuracy.items())[:2]]
    return (
        (f"Alignment of {merged.name}", rate_cell(merged.alignment)),
        *([(f"Alignment of its safest parent, {safest.name}", rate_cell(safest.alignment))] if safest else []),
        (f"Over-refusal of {merged.name}", rate_cell(merged.over_refusal)),
        *accuracy,
    )


def _measurements(record: RunRecord) -> tuple[Block, ...]:
    if not record.models:
        return (Paragraph("No model was measured."),)
    guard = guard_of(record.spec)
    not_measured = tuple(f"{model.name}: {model.not_measured}" for model in record.models if model.not_measured)
    blocks: list[Block | None] = [
        measured_table(record.models),
        BulletList(not_measured) if not_measured else None,
        *broken_notices(record.models),
        Paragraph(method_line(record.spec)) if record.spec else None,
        Notice("plain", f"{NOT_SAFE} {guard_limits(guard) if guard else ''}".strip()),
        charts.plane(record.view),
        task_table(record.models),
        detail_table(record.models),
        agreement_table(record.models),
    ]
    return tuple(block for block in blocks if block)


def _categories(models: Sequence[ModelResult]) -> tuple[Block, ...]:
    tables = (category_table(models, "alignment"), category_table(models, "over-refusal"))
    blocks: tuple[Block | None, ...] = (charts.categories(models), *tables)
    return tuple(block for block in blocks if block)


def _search(record: RunRecord) -> tuple[Block, ...]:
    blocks = search_blocks(record)
    curve = charts.losses(record.view)
    return (*blocks[:2], curve, *blocks[2:]) if curve else blocks


def _warnings(record: RunRecord) -> tuple[Block, ...]:
    """List the run's warnings, the findings of its checks, and searches that ended early."""
    view = record.view
    items = [f"{warned.message} {warned.hint}".strip() for warned in view.warnings]
    items += [f"{row.model}: {row.check}: {row.detail} {row.hint}".strip() for row in view.checks if row.status != "ok"]
    items += [f"A search ended early: {reason}" for reason in view.early_ends]
    return (BulletList(tuple(items)),) if items else ()


def _missing(record: RunRecord) -> tuple[Block, ...]:
    return (BulletList(tuple(part.message for part in record.missing)),) if record.missing else ()
