"""Everything that can be checked of a comparison before any weights are downloaded, as rows of a table.

The models need not fit together, only each of them this machine, one after the other. A parent in an audit that cannot
be had does not stop the others: its error row becomes a warning, and it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from core.contracts.comparison_spec import ComparedModel, ComparisonSpec
from core.contracts.events import CheckRow
from core.contracts.run_spec import EvaluationSpec
from core.errors import SafeMergeError
from core.evaluation.suites import suites_to_measure
from core.models.memory import MemoryPlan, Room, Side, available_memory_bytes, free_room, plan_for_measuring
from core.models.metadata import ModelMetadata
from core.preflight.compatibility import check_alone
from core.preflight.guard_check import check_guards
from core.preflight.resources import RUN, download_row, single_memory_rows
from core.preflight.run_check import blocking_rows, prompt_rows, read_or_row, tasks_row
from core.settings import Settings


class ExaminedComparison(NamedTuple):
    """A comparison, checked.

    Attributes:
        rows: of the table.
        plans: what each model that can be had takes while it is measured.
        left_out: why a parent cannot be measured, by the model's name.
    """

    rows: list[CheckRow]
    plans: list[MemoryPlan]
    left_out: dict[str, str]

    def needed(self, side: Side) -> int:
        """Bytes that the model that takes most of them takes."""
        return max((plan.needed(side) for plan in self.plans), default=0)


def examine_comparison(spec: ComparisonSpec, settings: Settings) -> ExaminedComparison:
    """Check a comparison's models, files, memory and disk; downloads small text files at most.

    Never raises for what a person asked for: a model or file that is not usable is an error row.
    """
    guards, guard_rows = check_guards(spec.guard, settings)
    room = free_room(available_memory_bytes())
    rows: list[CheckRow] = []
    found: list[ModelMetadata] = [guard.metadata for guard in guards]
    plans: list[MemoryPlan] = []
    left_out: dict[str, str] = {}
    for compared in spec.models:
        own = list(_model_rows(compared, found[: len(guards)], room, settings, found.append, plans.append))
        if compared.role == "parent" and (blocking := blocking_rows(own)):
            left_out[compared.model] = f"{blocking[0].check}: {blocking[0].detail}"
            own = [_not_measured(row) if row in blocking else row for row in own]
        rows += own
    rows += guard_rows
    rows += list(prompt_rows(spec.evaluation, settings))
    rows += list(_measured_rows(spec.evaluation, settings))
    rows.append(download_row(found, settings))
    return ExaminedComparison(rows, plans, left_out)


def _model_rows(
    compared: ComparedModel,
    guards: Sequence[ModelMetadata],
    room: Room,
    settings: Settings,
    found: Callable[[ModelMetadata], None],
    planned: Callable[[MemoryPlan], None],
) -> Iterator[CheckRow]:
    """A model by itself; `found` and `planned` are given what is known of one that can be had."""
    model, rows = read_or_row(compared.model, settings)
    yield from rows
    if model is None:
        return
    rows = list(check_alone(model))
    plan = plan_for_measuring(model, guards, room)
    rows += list(single_memory_rows(compared.model, plan))
    if not blocking_rows(rows):
        found(model)
        planned(plan)
    yield from rows


def _not_measured(row: CheckRow) -> CheckRow:
    return row.model_copy(update={"status": "warning", "detail": f"{row.detail}; it is not measured"})


def _measured_rows(wanted: EvaluationSpec, settings: Settings) -> Iterator[CheckRow]:
    """Whether anything is measured at all, and whether the suite or tasks exist."""
    if not (wanted.prompts or wanted.benign or wanted.suite or wanted.tasks or wanted.fluency):
        hint = "Name test prompts, harmless look-alikes, a suite or tasks."
        yield CheckRow(model=RUN, check="measured", status="error", detail="nothing is to be measured", hint=hint)
    if wanted.tasks:
        yield tasks_row(wanted, settings)
        return
    try:
        suites = suites_to_measure(wanted)
    except SafeMergeError as error:
        yield CheckRow(model=RUN, check="accuracy suite", status="error", detail=error.message, hint=error.hint)
        return
    if suites:
        tasks = ", ".join(task for suite in suites for task in suite.tasks)
        yield CheckRow(model=RUN, check="accuracy suite", status="ok", detail=tasks)
