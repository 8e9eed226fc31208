"""Whether a training file has at least one pair that the run will keep, judged by the run's own checks."""

from __future__ import annotations

from collections.abc import Iterator

from core.contracts.events import CheckRow
from core.contracts.run_spec import RunSpec
from core.data.import_pairs import read_pairs
from core.data.opened_source import open_source
from core.errors import DataError, GuardError
from core.guards.guard_names import parse_guards
from core.guards.protocol import Guard
from core.guards.registry import load_guard
from core.preflight.check_rows import RUN, failed_row
from core.preflight.leak_check import held_out_prompts, training_files
from core.settings import Settings


def usable_pair_rows(spec: RunSpec, settings: Settings) -> Iterator[CheckRow]:
    """An error row for each training file of which no pair can be used: repeated prompts, too long, no refusals.

    Reading stops at the first usable pair. The files must be readable: call this once the checks of each have passed.
    A guard that is a model does not judge here.
    """
    held_out = held_out_prompts(spec, settings)
    guard = _quick_guard(spec.pool.guard, settings)
    for dataset, source in training_files(spec):
        opened = open_source(source, dataset, settings)
        if not opened.answered:
            continue
        judge = guard if dataset == "safety" else None
        try:
            for _ in read_pairs(opened, dataset, k=1, held_out=held_out, guard=judge):
                pass
        except DataError as error:
            yield failed_row(RUN, f"{dataset} data", error)


def _quick_guard(name: str, settings: Settings) -> Guard | None:
    """The guard if it needs no model; None for guards that are models."""
    try:
        guards = parse_guards(name, settings)
    except GuardError:  # has an error row of its own
        return None
    return load_guard(name, settings) if all(guard.model is None for guard in guards) else None
