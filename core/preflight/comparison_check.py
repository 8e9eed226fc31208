"""Checks everything about a comparison that can be checked before any weights are downloaded, as rows of a table.

Models are loaded one after the other, so each has to fit the machine by itself; they need not match one another. In an
audit an unavailable parent does not stop the comparison: its error row becomes a warning, and the parent is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.events import CheckRow
from core.contracts.number_formats import NumberFormat
from core.contracts.run_spec import EvaluationSpec
from core.errors import SafeMergeError
from core.evaluation.suites import suites_to_measure
from core.models.memory import FreeMemory, MemoryPlan, Side, available_memory_bytes, free_memory, plan_for_measuring
from core.models.metadata import ModelMetadata
from core.preflight.check_rows import RUN, blocking_rows, error_row, failed_row, ok_row
from core.preflight.compatibility import check_alone
from core.preflight.guard_check import check_guards
from core.preflight.number_format import number_format_row
from core.preflight.resources import download_row, single_memory_rows
from core.preflight.run_check import prompt_rows, read_or_row, tasks_row
from core.settings import Settings


class CheckedComparison(NamedTuple):
    """The result of checking a comparison.

    Attributes:
        rows: of the table.
        plans: memory that each available model takes while it is measured.
        left_out: name of each parent that cannot be measured -> the reason.
    """

    rows: list[CheckRow]
    plans: list[MemoryPlan]
    left_out: dict[str, str]

    def needed(self, side: Side) -> int:
        """Bytes that the largest of the models takes on one side."""
        return max((plan.needed(side) for plan in self.plans), default=0)


class _CheckedModel(NamedTuple):
    """One model: its rows, and its metadata and memory plan, both None where it cannot be measured."""

    rows: list[CheckRow]
    metadata: ModelMetadata | None
    plan: MemoryPlan | None


def examine_comparison(spec: ComparisonSpec, settings: Settings) -> CheckedComparison:
    """Check a comparison's models, files, memory and disk; downloads small text files at most.

    Never raises for a mistake in the spec: an unusable model or file gives an error row.
    """
    loads, guard_rows = check_guards(spec.guard, settings)
    guards = [guard.metadata for guard in loads]
    free = free_memory(available_memory_bytes())
    rows, models, plans, left_out = list[CheckRow](), list(guards), list[MemoryPlan](), dict[str, str]()
    for compared in spec.models:
        checked = _check_model(compared.model, guards, free, spec.dtype, settings)
        own, blocking = checked.rows, blocking_rows(checked.rows)
        if checked.metadata and checked.plan:
            models.append(checked.metadata)
            plans.append(checked.plan)
        if compared.role == "parent" and blocking:
            left_out[compared.model] = f"{blocking[0].check}: {blocking[0].detail}"
            own = [_as_warning(row) if row in blocking else row for row in own]
        rows += own
    rows += [*guard_rows, number_format_row(spec.dtype, settings)]
    rows += [*prompt_rows(spec.evaluation, settings), *_measurement_rows(spec.evaluation, settings)]
    return CheckedComparison([*rows, download_row(models, settings)], plans, left_out)


def _check_model(
    name: str, guards: Sequence[ModelMetadata], free: FreeMemory, dtype: NumberFormat, settings: Settings
) -> _CheckedModel:
    """Check one model by itself, with the guards in memory beside it."""
    model, rows = read_or_row(name, settings)
    if model is None:
        return _CheckedModel(rows, None, None)
    plan = plan_for_measuring(model, guards, free, dtype)
    rows = [*check_alone(model), *single_memory_rows(name, plan)]
    return _CheckedModel(rows, None, None) if blocking_rows(rows) else _CheckedModel(rows, model, plan)


def _as_warning(row: CheckRow) -> CheckRow:
    return row.model_copy(update={"status": "warning", "detail": f"{row.detail}; it is not measured"})


def _measurement_rows(evaluation: EvaluationSpec, settings: Settings) -> Iterator[CheckRow]:
    """Whether the comparison measures anything, and whether the suite or tasks exist."""
    if not (evaluation.prompts or evaluation.benign or evaluation.suite or evaluation.tasks or evaluation.fluency):
        hint = "Name test prompts, harmless look-alikes, a suite or tasks."
        yield error_row(RUN, "measured", "the spec names nothing to measure", hint)
    if evaluation.tasks:
        yield tasks_row(evaluation, settings)
        return
    try:
        suites = suites_to_measure(evaluation)
    except SafeMergeError as error:
        yield failed_row(RUN, "accuracy suite", error)
        return
    if suites:
        yield ok_row(RUN, "accuracy suite", ", ".join(task for suite in suites for task in suite.tasks))
