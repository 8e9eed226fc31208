"""What is in a report, and in which order: a run's record becomes a `Document`.

Pure: the same record gives the same document. Sections without content are left out; what a run lacks is said under
"Not there".
"""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.results import ModelResult
from core.report import figures
from core.report.audit_section import broken_notices, cost_blocks, verdict_blocks
from core.report.data_section import data_blocks
from core.report.document import Block, Cell, Document, Notice, Paragraph, Points, Section, Tone
from core.report.limits import NOT_SAFE, guard_limits, guard_of, limit_blocks, method_line
from core.report.merge_section import machine_blocks, merge_blocks, pool_blocks, started_words
from core.report.paired_section import comparison_blocks
from core.report.reply_section import reply_blocks
from core.report.result_tables import (
    agreement_table,
    category_table,
    further_table,
    measured_table,
    rate_cell,
    task_table,
)
from core.report.run_record import RunRecord
from core.report.search_section import search_blocks


def report_document(record: RunRecord) -> Document:
    """The whole report of a run, also of one that failed, was stopped or is still at work."""
    status, tone = _status(record)
    sections = (
        Section("How it ended", _ending(record)),
        Section("Verdict", verdict_blocks(record)),
        Section("Measured", _measured(record)),
        Section("Without each expert", cost_blocks(record)),
        Section("Prompt by prompt", comparison_blocks(record)),
        Section("By category", _categories(record.models)),
        Section("Replies", reply_blocks(record)),
        Section("What took part", pool_blocks(record)),
        Section("Merges", merge_blocks(record)),
        Section("Search", _search(record)),
        Section("Training data", data_blocks(record)),
        Section("Warnings", _warnings(record)),
        Section("Machine and weights", machine_blocks(record)),
        Section("Limits", limit_blocks(record)),
        Section("Not there", (Points(record.missing),) if record.missing else ()),
    )
    return Document(
        title=_title(record),
        subtitle=f"Run {record.run_id}, started {started_words(record)}",
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
        return f"{merged[0]} and its parents" if merged else f"{count} model{'s' * (count > 1)}, measured"
    return "A merge of " + ", ".join((spec.pool.base, *(expert.model for expert in spec.pool.experts)))


def _status(record: RunRecord) -> tuple[str, Tone]:
    match record.view.status:
        case "finished":
            return "finished", "plain"
        case "failed":
            return "failed", "bad"
        case "cancelled":
            return "stopped", "warn"
    return ("at work", "warn") if record.at_work else ("without an end", "bad")


def _ending(record: RunRecord) -> tuple[Block, ...]:
    """What to know of a run that did not end well: why, how far it came, what is not there because of it."""
    view = record.view
    match view.status:
        case "finished":
            return ()
        case "failed":
            words = f"The run failed: {view.message} {view.hint}".strip()
        case "cancelled":
            words = f"The run was stopped. {'' if view.message == 'Stopped.' else view.message}".strip()
        case _ if record.at_work:
            words = "The run is still at work; this is what it has so far."
        case _:
            words = "The log has no end and no process works on the run: core resume goes on with it."
    _, tone = _status(record)
    reached = f"It came to: {view.phase}." if view.phase else "It had not begun."
    done = sum(not model.not_measured for model in record.models)
    measured = f"{done} models had been measured." if done else "No model had been measured."
    return (Notice(tone, words), Paragraph(f"{reached} {measured}"))


def _headlines(record: RunRecord) -> tuple[tuple[str, Cell], ...]:
    """The merge's figures, and the safest parent's beside them."""
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


def _measured(record: RunRecord) -> tuple[Block, ...]:
    if not record.models:
        return (Paragraph("No model was measured."),)
    line = [Paragraph(method_line(record.spec))] if record.spec else []
    guard = guard_of(record.spec)
    left_out = tuple(f"{model.name}: {model.not_measured}" for model in record.models if model.not_measured)
    blocks: list[Block | None] = [
        measured_table(record.models),
        Points(left_out) if left_out else None,
        *broken_notices(record.models),
        *line,
        Notice("plain", f"{NOT_SAFE} {guard_limits(guard) if guard else ''}".strip()),
        figures.plane(record.view),
        task_table(record.models),
        further_table(record.models),
        agreement_table(record.models),
    ]
    return tuple(block for block in blocks if block)


def _categories(models: Sequence[ModelResult]) -> tuple[Block, ...]:
    tables = (category_table(models, "alignment"), category_table(models, "over-refusal"))
    found: tuple[Block | None, ...] = (figures.categories(models), *tables)
    return tuple(block for block in found if block)


def _search(record: RunRecord) -> tuple[Block, ...]:
    blocks = search_blocks(record)
    curve = figures.losses(record.view)
    return (*blocks[:2], curve, *blocks[2:]) if curve else blocks


def _warnings(record: RunRecord) -> tuple[Block, ...]:
    """What the run warned of, what its checks found, and searches that ended early."""
    view = record.view
    items = [f"{warned.message} {warned.hint}".strip() for warned in view.warnings]
    items += [f"{row.model}: {row.check}: {row.detail} {row.hint}".strip() for row in view.checks if row.status != "ok"]
    items += [f"A search ended early: {words}" for words in view.early_ends]
    return (Points(tuple(items)),) if items else ()
