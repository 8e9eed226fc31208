"""Checks everything about a run that can be checked before any weights are downloaded, as rows of a table.

A model that cannot be read gives an error row, and the other checks go on, so that the table shows every problem at
once. A run whose table has an error row must not start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from core.contracts.data_spec import SourceSpec, TrainingSetSpec
from core.contracts.events import CheckRow
from core.contracts.optimizers import chooses_by_accuracy
from core.contracts.run_spec import EvaluationSpec, ExpertSpec, RunSpec
from core.data.domain_catalog import resolve_domain
from core.data.opened_source import check_source
from core.data.prompt_sets import find_dataset, prompt_columns, read_prompt_set
from core.data.training_pairs import Dataset
from core.errors import ModelError, SafeMergeError
from core.evaluation.probe import read_probe_questions
from core.evaluation.suites import probe_question_files
from core.models.memory import MemoryPlan
from core.models.metadata import ModelMetadata, read_metadata
from core.models.prompt_formats import is_template_file
from core.models.references import parse_reference
from core.preflight.check_rows import RUN, blocking_rows, error_row, failed_row, ok_row
from core.preflight.compatibility import check_against, check_alone
from core.preflight.configuration_check import configuration_rows
from core.preflight.finite_check import finite_rows
from core.preflight.format_check import format_rows
from core.preflight.genome_check import check_genome
from core.preflight.guard_check import check_guards
from core.preflight.leak_check import leak_rows
from core.preflight.method_check import method_rows
from core.preflight.number_format import number_format_row
from core.preflight.prompt_length_check import prompt_length_rows
from core.preflight.resources import PoolMetadata, check_resources
from core.preflight.task_check import check_tasks
from core.preflight.usable_pairs_check import usable_pair_rows
from core.settings import ASSETS, Settings, resolve_path


class CheckedRun(NamedTuple):
    """The rows of the table, and the memory plan of the run (None when the base cannot be read)."""

    rows: list[CheckRow]
    memory: MemoryPlan | None


def preflight(spec: RunSpec, settings: Settings) -> list[CheckRow]:
    """Check a run's models, files, memory and disk; downloads small text files at most.

    Never raises for a mistake in the spec: an unusable model or file gives an error row.
    """
    return examine(spec, settings).rows


def examine(spec: RunSpec, settings: Settings) -> CheckedRun:
    """`preflight`, together with the memory plan that its rows show."""
    pool = spec.pool
    base, rows = read_or_row(pool.base, settings)
    if base is not None:
        rows += [*check_alone(base), *finite_rows(base, settings)]
    members, member_rows = _check_members(spec, base, settings)
    rows += [*member_rows, *_repeated_rows(spec, settings)]
    rows += method_rows(spec, settings)
    generator, generator_rows = read_or_row(pool.generator, settings) if pool.generator else (None, [])
    rows += generator_rows
    if generator is not None:
        rows += check_alone(generator)
    guards, guard_rows = check_guards(pool.guard, settings)
    rows += guard_rows
    memory = None
    if base is not None:
        rows += _configuration_rows(spec, base, members, settings)
        rows += check_genome(spec, base)
        others = [model for model in (generator, *(guard.metadata for guard in guards)) if model]
        memory, resource_rows = check_resources(spec, PoolMetadata(base, [base, *members], others, guards), settings)
        rows += resource_rows
    file_rows = list(_file_rows(spec, settings))
    if base is not None and not blocking_rows([*rows, *file_rows]):
        read = {str(model.ref): model for model in members}
        experts = [(one.model, read[_spelled(one.model, settings)]) for one in pool.experts]
        rows += format_rows(pool, base, experts, settings)
        file_rows += prompt_length_rows(spec.evaluation, [base, *members], settings)
    return CheckedRun([*rows, number_format_row(pool.dtype, settings), *file_rows], memory)


def _check_members(
    spec: RunSpec, base: ModelMetadata | None, settings: Settings
) -> tuple[list[ModelMetadata], list[CheckRow]]:
    """The experts and the ancestor, those that can be read, with the rows of all."""
    pool, found, rows = spec.pool, list[ModelMetadata](), list[CheckRow]()
    named = [(expert.model, True) for expert in pool.experts] + ([(pool.ancestor, False)] if pool.ancestor else [])
    for text, is_expert in named:
        model, own = read_or_row(text, settings)
        rows += own
        if model is None:
            continue
        found.append(model)
        template = pool.template_of(text) if is_expert else None
        if template and is_template_file(template) and not _may_open(template, settings):
            rows.append(_refused_path(text, "chat template", template))
            template = None
        rows += [*check_alone(model, chat=is_expert, template=template), *finite_rows(model, settings)]
        if base is not None:
            vocabulary = pool.vocabulary if is_expert else "refuse"
            rows += check_against(model, base, chat=is_expert, vocabulary=vocabulary, template=template)
    return found, rows


def _configuration_rows(
    spec: RunSpec, base: ModelMetadata, others: Sequence[ModelMetadata], settings: Settings
) -> Iterator[CheckRow]:
    """Rows that compare the members' configurations with that of the model that `pool.config` names."""
    pool = spec.pool
    outside = pool.ancestor not in (None, pool.base, *(expert.model for expert in pool.experts))
    ancestor = next(
        (model for model in others if outside and str(model.ref) == _spelled(str(pool.ancestor), settings)), None
    )
    members = [base, *(model for model in others if model is not ancestor)]
    named = _spelled(pool.settings_owner, settings)
    owner = next((model for model in members if str(model.ref) == named), None)
    if owner is not None:
        yield from configuration_rows(members, owner, ancestor)


def _spelled(text: str, settings: Settings) -> str:
    """The reference as rows of the table spell it; the text itself if it is no reference."""
    try:
        return str(parse_reference(text, settings))
    except ModelError:
        return text


def read_or_row(text: str, settings: Settings) -> tuple[ModelMetadata | None, list[CheckRow]]:
    """A model's metadata, or None and the error row that says why it cannot be read."""
    try:
        return read_metadata(parse_reference(text, settings), settings), []
    except ModelError as error:
        return None, [failed_row(text, "found", error)]


def _repeated_rows(spec: RunSpec, settings: Settings) -> Iterator[CheckRow]:
    """Error rows for models that the pool names twice, also in another spelling."""
    seen = {_identity(spec.pool.base, settings): spec.pool.base}
    for expert in spec.pool.experts:
        identity = _identity(expert.model, settings)
        if identity in seen:
            detail = f"is already in the pool{f' as {seen[identity]}' * (seen[identity] != expert.model)}"
            hint = "Name each model once: merging a model with itself changes nothing."
            yield error_row(expert.model, "pool", detail, hint)
        seen.setdefault(identity, expert.model)
    ancestor = spec.pool.ancestor
    member = seen.get(_identity(ancestor, settings)) if ancestor else None
    if ancestor and member and member != ancestor:
        detail = f"the ancestor is {member} in another spelling"
        yield error_row(ancestor, "pool", detail, f"Write {member} in pool.ancestor too.")


def _identity(text: str, settings: Settings) -> str:
    try:
        return parse_reference(text, settings).identity
    except ModelError:  # has an error row of its own
        return text


def _file_rows(spec: RunSpec, settings: Settings) -> Iterator[CheckRow]:
    """Rows about training data, prompts, questions, tasks and domains."""
    data, evaluation = spec.data, spec.evaluation
    sets: tuple[tuple[Dataset, TrainingSetSpec], ...] = (("safety", data.safety), ("domain", data.domain))
    rows = [
        _source_row(dataset, source, settings)
        for dataset, training_set in sets
        for source in training_set.sources
        if source.source != "generate"
    ]
    if spec.benign is not None and spec.benign.file is not None:
        rows.append(_source_row("benign", spec.benign.file, settings))
    rows += prompt_rows(evaluation, settings)
    if evaluation.probe:
        rows.append(_prompts_row("probe prompts", evaluation.probe, evaluation, settings))
    if evaluation.probe_benign:
        rows.append(_prompts_row("harmless probe prompts", evaluation.probe_benign, evaluation, settings))
    yield from rows
    if not blocking_rows(rows):
        leaks = list(leak_rows(spec, settings))
        yield from leaks
        if not blocking_rows(leaks):
            yield from usable_pair_rows(spec, settings)
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
    """Whether the files of test prompts exist and can be read."""
    sets = {
        "test prompts": evaluation.prompts,
        "benign prompts": evaluation.benign,
        "outside prompts": evaluation.outside,
    }
    for check, path in sets.items():
        if path:
            yield _prompts_row(check, path, evaluation, settings)
    if evaluation.prompts and evaluation.prompts == evaluation.benign:
        detail = f"{evaluation.benign} is also the file of the unsafe test prompts"
        yield error_row(
            RUN, "benign prompts", detail, "Name a file of harmless prompts, or leave evaluation.benign out."
        )


def _grid_rows(spec: RunSpec) -> Iterator[CheckRow]:
    """Error rows where grid search has no probe questions to choose by."""
    try:
        files = probe_question_files(spec)
    except SafeMergeError as error:
        yield failed_row(RUN, "accuracy suite", error)
        return
    if not files:
        detail = "grid search chooses by probe questions, and only the demo's suites have their own"
        hint = "Name a file in evaluation.probe_questions, or remove grid search."
        yield error_row(RUN, "grid search", detail, hint)


def _domain_row(expert: ExpertSpec, settings: Settings) -> CheckRow:
    """Whether the expert's domain has all that writing questions needs."""
    if expert.domain.examples and not _may_open(expert.domain.examples, settings):
        return _refused_path(expert.model, "domain", expert.domain.examples)
    try:
        domain = resolve_domain(expert.domain)
    except SafeMergeError as error:
        return failed_row(expert.model, "domain", error)
    detail = f"{domain.name} ({domain.topic}), {len(domain.examples)} example questions"
    return ok_row(expert.model, "domain", detail)


def _may_open(path: str, settings: Settings) -> bool:
    """Whether a file may be read: on a Space only files of the project and uploads."""
    resolved = resolve_path(path).resolve()
    return not settings.on_space or any(resolved.is_relative_to(root) for root in (ASSETS, settings.uploads.resolve()))


def _refused_path(model: str, check: str, path: str) -> CheckRow:
    detail = f"{path} is a local path, which a Space does not open"
    return error_row(model, check, detail, "Use one of the files that come with SafeMerge.")


def _source_row(dataset: Dataset, source: SourceSpec, settings: Settings) -> CheckRow:
    """Whether a file or dataset of training pairs exists, may be read and has the columns."""
    check = f"{dataset} data"
    if source.source == "file" and not _may_open(str(source.path), settings):
        return _refused_path(RUN, check, str(source.path))
    try:
        return ok_row(RUN, check, check_source(source, dataset, settings))
    except SafeMergeError as error:
        return failed_row(RUN, check, error)


def _prompts_row(check: str, name: str, evaluation: EvaluationSpec, settings: Settings) -> CheckRow:
    """Whether the test prompts can be read, and how many there are."""
    if find_dataset(name) is None and not _may_open(name, settings):
        return _refused_path(RUN, check, name)
    try:
        prompts, source = read_prompt_set(name, None, settings, prompt_columns(evaluation))
    except SafeMergeError as error:
        return failed_row(RUN, check, error)
    return ok_row(RUN, check, f"{len(prompts):,} rows in {source}")


def tasks_row(evaluation: EvaluationSpec, settings: Settings) -> CheckRow:
    """Whether lm-eval has the tasks, and whether they measure accuracy."""
    check, folder = "accuracy tasks", evaluation.include_path
    if folder and not _may_open(folder, settings):
        return _refused_path(RUN, check, folder)
    try:
        check_tasks(evaluation.tasks, resolve_path(folder) if folder else None)
    except SafeMergeError as error:
        return failed_row(RUN, check, error)
    return ok_row(RUN, check, ", ".join(evaluation.tasks))


def _file_row(check: str, path: str, read: Callable[[Path], Sequence[object]], settings: Settings) -> CheckRow:
    """Read the file with `read`, as the run will, and count its rows."""
    if not _may_open(path, settings):
        return _refused_path(RUN, check, path)
    try:
        count = len(read(resolve_path(path)))
    except SafeMergeError as error:
        return failed_row(RUN, check, error)
    return ok_row(RUN, check, f"{count:,} rows in {path}")
