"""Whether the training files of a spec repeat its test prompts: such rows are dropped, so they are reported before.

Only equal texts are compared here (`core.data.overlap.normalize`); the data step also drops nearly equal ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from core.contracts.data_spec import SourceSpec
from core.contracts.events import CheckRow
from core.contracts.run_spec import RunSpec
from core.data.opened_source import open_source
from core.data.overlap import find_leaks
from core.data.prompt_sets import find_dataset, prompt_columns, read_prompt_set
from core.data.training_pairs import Dataset
from core.preflight.check_rows import error_row, warning_row
from core.settings import Settings

_MOST_ROWS = 20_000


def leak_rows(spec: RunSpec, settings: Settings) -> Iterator[CheckRow]:
    """A row for each training file that repeats test prompts: an error if no other row is left.

    The files must be readable: call this once the checks of each file have passed.
    """
    held_out = held_out_prompts(spec, settings)
    for dataset, source in training_files(spec):
        questions = [mapped.stem for mapped in islice(open_source(source, dataset, settings).rows, _MOST_ROWS)]
        leaks = len(find_leaks(questions, held_out, near=False))
        if leaks:
            yield _row(dataset, leaks, len(questions))


def _row(dataset: Dataset, leaks: int, rows: int) -> CheckRow:
    check, detail = f"{dataset} data", f"{leaks:,} of {rows:,} rows repeat a prompt of the test or probe files"
    if leaks == rows:
        hint = "Use other training data, or measure on other prompts."
        return error_row("run", check, f"{detail}, so no pair is left", hint)
    return warning_row("run", check, detail, "Those rows are not used.")


def training_files(spec: RunSpec) -> Iterator[tuple[Dataset, SourceSpec]]:
    """The training files of a spec with the set that each belongs to."""
    for source in spec.data.safety.sources:
        if source.source == "file":
            yield "safety", source
    for source in spec.data.domain.sources:
        if source.source == "file":
            yield "domain", source
    if spec.benign is not None and spec.benign.file is not None:
        yield "benign", spec.benign.file


def held_out_prompts(spec: RunSpec, settings: Settings) -> list[str]:
    """The prompts of the test and probe files; test sets on the Hub are read when the run begins."""
    evaluation = spec.evaluation
    sets = (evaluation.prompts, evaluation.benign, evaluation.probe, evaluation.probe_benign, evaluation.outside)
    names = [name for name in sets if name]
    columns = prompt_columns(evaluation)
    files = [read_prompt_set(name, None, settings, columns) for name in names if find_dataset(name) is None]
    return [prompt.prompt for file in files for prompt in file.prompts]
