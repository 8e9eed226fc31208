"""The results of the comparison so far: rates pooled over the finished seeds, and tests against the searches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from benchmarks.paper.plan import Pool
from benchmarks.paper.study import Study
from benchmarks.rivals.cost import cost_of, mean_cost
from benchmarks.rivals.entries import EVOMM, FIRST, GRADIENT, Entry, Scale, cell_names, entries, folder_of
from benchmarks.seeds import distinct, finished_result, pool_rates, read_model
from core.contracts.results import ModelResult, Rate
from core.errors import DataError
from core.evaluation.paired_replies import Measure, pair_replies
from core.evaluation.replies import ReplyRow, read_rows
from core.runs.folder import RunFolder

REFERENCES = {EVOMM: (FIRST, EVOMM), GRADIENT: (GRADIENT, GRADIENT)}
"""The merges that the others are tested against: cell and model by name."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Difference(_Frozen):
    """McNemar's exact test on the replies of one seed: this merge's rate minus the reference's, and the p-value."""

    difference: float
    p_value: float


class Row(_Frozen):
    """One merge or parent; figures are null where no run is finished.

    Attributes:
        title: name in the table.
        group: as of the entry.
        seeds: the pooled seeds.
        alignment, over_refusal, accuracy: rates of all seeds together.
        perplexity: mean, smallest and largest over the seeds.
        candidates: of the search, mean over the seeds; null without a search.
        seconds: that the merge takes alone (`benchmarks.rivals.cost`), mean over the seeds; null where it takes none.
        tests: by reference, then by measure.
    """

    title: str
    group: str
    seeds: tuple[int, ...] = ()
    alignment: Rate | None = None
    over_refusal: Rate | None = None
    accuracy: dict[str, Rate] = {}
    perplexity: tuple[float, float, float] | None = None
    candidates: float | None = None
    seconds: float | None = None
    tests: dict[str, dict[str, Difference]] = {}

    @property
    def mean_accuracy(self) -> float | None:
        """Unweighted mean over tasks."""
        return fmean(rate.rate for rate in self.accuracy.values()) if self.accuracy else None


class Comparison(_Frozen):
    """All rows, by pool.

    Attributes:
        command: that makes the page.
        scale: how large the runs were, where that differs from the study.
        missing: runs that are not finished.
        hours: of the finished runs.
    """

    command: str
    study: Study
    seeds: tuple[int, ...]
    scale: dict[str, int]
    pools: dict[Pool, tuple[Row, ...]]
    missing: tuple[str, ...]
    hours: float


def compare(
    study: Study, out: Path, pools: Sequence[Pool], seeds: Sequence[int], scale: Scale, command: str
) -> Comparison:
    """Read the finished runs below `out` and return the comparison."""
    folders = [folder_of(pool, name, seed) for pool in pools for seed in seeds for name in cell_names()]
    found = {name: finished_result(RunFolder(out / name)) for name in folders}
    return Comparison(
        command=command,
        study=study,
        seeds=tuple(seeds),
        scale={name: value for name, value in vars(scale).items() if value is not None},
        pools={pool: tuple(_row(entry, pool, out, seeds) for entry in entries(study, pool)) for pool in pools},
        missing=tuple(name for name, result in found.items() if result is None),
        hours=sum(result.seconds for result in found.values() if result) / 3600,
    )


def _row(entry: Entry, pool: Pool, out: Path, seeds: Sequence[int]) -> Row:
    folders = {seed: RunFolder(out / folder_of(pool, entry.cell, seed)) for seed in seeds}
    results = {seed: result for seed, folder in folders.items() if (result := finished_result(folder))}
    models = {seed: model for seed, result in results.items() if (model := read_model(result, entry.model))}
    measured = distinct(list(models.values()))
    tasks = dict.fromkeys(task for model in measured for task in model.accuracy)
    perplexities = [model.perplexity for model in measured if model.perplexity is not None]
    return Row(
        title=entry.title,
        group=entry.group,
        seeds=tuple(models),
        alignment=_pooled(model.alignment for model in measured),
        over_refusal=_pooled(model.over_refusal for model in measured),
        accuracy={task: pool_rates([m.accuracy[task] for m in measured if task in m.accuracy]) for task in tasks},
        perplexity=(fmean(perplexities), min(perplexities), max(perplexities)) if perplexities else None,
        **mean_cost([cost_of(folders[seed].read_events(), entry.model) for seed in models])._asdict(),
        tests=_tests(entry, pool, out, models),
    )


def _pooled(rates: Iterable[Rate | None]) -> Rate | None:
    known = [rate for rate in rates if rate is not None]
    return pool_rates(known) if known else None


def _tests(entry: Entry, pool: Pool, out: Path, models: dict[int, ModelResult]) -> dict[str, dict[str, Difference]]:
    """Return the tests of the first finished seed; those of other seeds use the same prompts and add no evidence."""
    if entry.group == "parent" or not models:
        return {}
    seed = min(models)
    mine = _replies(RunFolder(out / folder_of(pool, entry.cell, seed)), entry.model)
    found: dict[str, dict[str, Difference]] = {}
    for name, (cell, model) in REFERENCES.items():
        if (cell, model) == (entry.cell, entry.model):
            continue
        theirs = _replies(RunFolder(out / folder_of(pool, cell, seed)), model)
        measures: tuple[Measure, ...] = ("alignment", "over_refusal")
        paired = {measure: pair_replies(measure, mine, theirs) for measure in measures}
        tests: dict[str, Difference] = {
            m: Difference(difference=p.difference, p_value=p.p_value) for m, p in paired.items() if p is not None
        }
        if tests:
            found[name] = tests
    return found


def _replies(folder: RunFolder, model: str) -> list[ReplyRow]:
    try:
        return read_rows(folder.replies_path(model))
    except DataError:  # not measured yet
        return []
