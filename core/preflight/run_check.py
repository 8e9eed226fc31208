"""Everything that can be checked of a run before any weights are downloaded, as rows of a table.

A model that cannot be read becomes an error row and the other checks go on, so that one look shows all that is wrong.
A run whose table has an error row must not start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from core.contracts.data_spec import SourceSpec, TrainingSetSpec
from core.contracts.events import CheckRow
from core.contracts.merge_methods import METHODS
from core.contracts.optimizers import chooses_by_accuracy
from core.contracts.run_spec import EvaluationSpec, ExpertSpec, RunSpec
from core.data.domain_catalog import resolve_domain
from core.data.opened_source import check_source
from core.data.prompt_sets import find_dataset, read_prompt_set
from core.data.training_pairs import Dataset
from core.errors import ModelError, SafeMergeError
from core.evaluation.probe import read_probe_questions
from core.evaluation.suites import probe_question_files
from core.models.memory import MemoryPlan
from core.models.metadata import ModelMetadata, read_metadata
from core.models.references import parse_reference
from core.preflight.compatibility import check_against, check_alone
from core.preflight.genome_check import check_genome
from core.preflight.guard_check import check_guards
from core.preflight.resources import RUN, PoolMetadata, check_resources
from core.preflight.task_check import check_tasks
from core.search.parameter_ranges import free_parameters
from core.settings import ASSETS, Settings, resolve_path


class Examined(NamedTuple):
    """A run, checked: the rows of the table, and how its weights will be kept (None when the base cannot be read)."""

    rows: list[CheckRow]
    memory: MemoryPlan | None


def preflight(spec: RunSpec, settings: Settings) -> list[CheckRow]:
    """Check a run's models, files, memory and disk; downloads small text files at most.

    Never raises for what a person asked for: a model or file that is not usable is an error row.
    """
    return examine(spec, settings).rows


def examine(spec: RunSpec, settings: Settings) -> Examined:
    """`preflight`, with the memory plan that its rows show."""
    plans: list[MemoryPlan] = []
    rows = [*_model_rows(spec, settings, plans.append), *_file_rows(spec, settings)]
    return Examined(rows, plans[0] if plans else None)


def blocking_rows(rows: list[CheckRow]) -> list[CheckRow]:
    """The rows for which a run must not start."""
    return [row for row in rows if row.status == "error"]


def _model_rows(spec: RunSpec, settings: Settings, planned: Callable[[MemoryPlan], None]) -> Iterator[CheckRow]:
    pool = spec.pool
    base, rows = read_or_row(pool.base, settings)
    yield from rows
    if base is not None:
        yield from check_alone(base)
    merged = [base] if base is not None else []
    members = [(expert.model, True) for expert in pool.experts] + ([(pool.ancestor, False)] if pool.ancestor else [])
    for text, chat in members:
        model, rows = read_or_row(text, settings)
        yield from rows
        if model is not None:
            merged.append(model)
            yield from check_alone(model, chat=chat)
            if base is not None:
                yield from check_against(model, base, chat=chat, vocabulary=pool.vocabulary if chat else "refuse")
    yield from _repeated(spec)
    if not METHODS[spec.search.method].fast:
        yield _method_row(spec)
    generator, rows = read_or_row(pool.generator, settings) if pool.generator else (None, [])
    yield from rows
    if generator is not None:
        yield from check_alone(generator)
    guards, rows = check_guards(pool.guard, settings)
    yield from rows
    if base is not None:
        yield from check_genome(spec, base)
        others = [model for model in (generator, *(guard.metadata for guard in guards)) if model]
        yield from check_resources(spec, PoolMetadata(base, merged, others, guards), settings, planned)


def refuse_blocking(rows: list[CheckRow]) -> None:
    """Raise `ModelError` about the first row for which a run must not start."""
    if blocking := blocking_rows(rows):
        first = blocking[0]
        more = f" ({len(blocking) - 1} more problems)" if len(blocking) > 1 else ""
        raise ModelError(f"{first.model}: {first.check}: {first.detail}{more}", first.hint)


def read_or_row(text: str, settings: Settings) -> tuple[ModelMetadata | None, list[CheckRow]]:
    """A model's metadata, or the row that says why there is none."""
    try:
        return read_metadata(parse_reference(text, settings), settings), []
    except ModelError as error:
        return None, [CheckRow(model=text, check="found", status="error", detail=error.message, hint=error.hint)]


def _repeated(spec: RunSpec) -> Iterator[CheckRow]:
    seen = {spec.pool.base}
    for expert in spec.pool.experts:
        if expert.model in seen:
            hint = "Name each model once; it adds nothing to merge a model with itself."
            detail = "is in the pool already"
            yield CheckRow(model=expert.model, check="pool", status="error", detail=detail, hint=hint)
        seen.add(expert.model)


def _method_row(spec: RunSpec) -> CheckRow:
    """How a method that mergekit merges itself is searched; what does not fit was refused with the spec."""
    info, experts = METHODS[spec.search.method], tuple(expert.model for expert in spec.pool.experts)
    free = free_parameters(spec.search.method, spec.pool.base, experts, spec.search.parameters)
    searched = f"searches {', '.join(one.name for one in free)}" if free else "has no number to search: one candidate"
    drawn = "; random numbers follow from search.seed" * info.random
    detail = f"{info.title}, merged by mergekit's own code; {searched}{drawn}"
    return CheckRow(model=RUN, check="merge method", status="ok", detail=detail)


def _file_rows(spec: RunSpec, settings: Settings) -> Iterator[CheckRow]:
    data, evaluation = spec.data, spec.evaluation
    sets: tuple[tuple[Dataset, TrainingSetSpec], ...] = (("safety", data.safety), ("domain", data.domain))
    for dataset, wanted in sets:
        for source in wanted.sources:
            if source.source != "generate":
                yield _source_row(dataset, source, settings)
    yield from prompt_rows(evaluation, settings)
    if evaluation.probe:
        yield _prompts_row("probe prompts", evaluation.probe, settings)
    if evaluation.probe_questions:
        yield _file_row("probe questions", evaluation.probe_questions, read_probe_questions, settings)
    if evaluation.tasks:
        yield tasks_row(evaluation, settings)
    if any(map(chooses_by_accuracy, (spec.search.optimizer, *spec.search.compare))):
        yield from _grid_rows(spec)
    if data.domain.generated:
        for expert in spec.pool.experts:
            yield _domain_row(expert, settings)


def prompt_rows(evaluation: EvaluationSpec, settings: Settings) -> Iterator[CheckRow]:
    """Whether the files of test prompts are there and can be read."""
    for check, path in (("test prompts", evaluation.prompts), ("benign prompts", evaluation.benign)):
        if path:
            yield _prompts_row(check, path, settings)


def _grid_rows(spec: RunSpec) -> Iterator[CheckRow]:
    """Grid search has nothing to choose by without probe questions."""
    try:
        found = probe_question_files(spec)
    except SafeMergeError as error:
        yield CheckRow(model=RUN, check="accuracy suite", status="error", detail=error.message, hint=error.hint)
        return
    if not found:
        hint = "Name a file in evaluation.probe_questions, or leave grid search out."
        detail = "grid search chooses by probe questions, which only the demo's suites bring along"
        yield CheckRow(model=RUN, check="grid search", status="error", detail=detail, hint=hint)


def _domain_row(expert: ExpertSpec, settings: Settings) -> CheckRow:
    """Whether the expert's domain tells enough to write questions in it."""
    if expert.domain.examples and not _may_open(expert.domain.examples, settings):
        return _refused_path(expert.model, "domain", expert.domain.examples)
    try:
        domain = resolve_domain(expert.domain)
    except SafeMergeError as error:
        return CheckRow(model=expert.model, check="domain", status="error", detail=error.message, hint=error.hint)
    detail = f"{domain.name} ({domain.topic}), {len(domain.examples)} example questions"
    return CheckRow(model=expert.model, check="domain", status="ok", detail=detail)


def _may_open(path: str, settings: Settings) -> bool:
    """On a Space only files that come with the project, or that were uploaded, are opened."""
    resolved = resolve_path(path).resolve()
    return not settings.on_space or any(resolved.is_relative_to(root) for root in (ASSETS, settings.uploads.resolve()))


def _refused_path(model: str, check: str, path: str) -> CheckRow:
    hint = "Use one of the files that come with SafeMerge."
    detail = f"{path} is a local path, which a Space does not open"
    return CheckRow(model=model, check=check, status="error", detail=detail, hint=hint)


def _source_row(dataset: Dataset, source: SourceSpec, settings: Settings) -> CheckRow:
    """Whether a file or dataset of training pairs is there, may be read and has the columns."""
    check = f"{dataset} data"
    if source.source == "file" and not _may_open(str(source.path), settings):
        return _refused_path(RUN, check, str(source.path))
    try:
        detail = check_source(source, dataset, settings)
    except SafeMergeError as error:
        return CheckRow(model=RUN, check=check, status="error", detail=error.message, hint=error.hint)
    return CheckRow(model=RUN, check=check, status="ok", detail=detail)


def _prompts_row(check: str, name: str, settings: Settings) -> CheckRow:
    """Whether the test prompts can be read, and how many there are."""
    if find_dataset(name) is None and not _may_open(name, settings):
        return _refused_path(RUN, check, name)
    try:
        prompts, source = read_prompt_set(name, None, settings)
    except SafeMergeError as error:
        return CheckRow(model=RUN, check=check, status="error", detail=error.message, hint=error.hint)
    return CheckRow(model=RUN, check=check, status="ok", detail=f"{len(prompts):,} rows in {source}")


def tasks_row(evaluation: EvaluationSpec, settings: Settings) -> CheckRow:
    """Whether lm-eval knows the tasks, and whether they measure accuracy."""
    check, folder = "accuracy tasks", evaluation.include_path
    if folder and not _may_open(folder, settings):
        return _refused_path(RUN, check, folder)
    try:
        check_tasks(evaluation.tasks, resolve_path(folder) if folder else None)
    except SafeMergeError as error:
        return CheckRow(model=RUN, check=check, status="error", detail=error.message, hint=error.hint)
    return CheckRow(model=RUN, check=check, status="ok", detail=", ".join(evaluation.tasks))


def _file_row(check: str, path: str, read: Callable[[Path], Sequence[object]], settings: Settings) -> CheckRow:
    """Read the file as the run will, and count its rows."""
    if not _may_open(path, settings):
        return _refused_path(RUN, check, path)
    try:
        count = len(read(resolve_path(path)))
    except SafeMergeError as error:
        return CheckRow(model=RUN, check=check, status="error", detail=error.message, hint=error.hint)
    return CheckRow(model=RUN, check=check, status="ok", detail=f"{count:,} rows in {path}")
