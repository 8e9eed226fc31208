"""The results of a study so far: rows of rates pooled over the finished seeds, and the paper's targets.

A row without finished cells stays in its table, without figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict

from benchmarks.paper.plan import ABLATIONS, Pool, Setting, Table, folder_of, own_setting, plan, settings_of, spec_of
from benchmarks.paper.study import Study
from benchmarks.seeds import distinct, finished_result, pool_rates, read_model
from core.contracts.results import ModelResult, Rate, RunResult
from core.runs.folder import RunFolder

LEAST_GAIN = 0.10
"""Target: the safety data improves alignment by at least this, on average over the rows of a table."""
MOST_LOST = 0.03
"""Target: the safety data reduces accuracy by at most this in each row."""
_ROUNDING = 1e-9


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Row(_Frozen):
    """One model of a table; rates are null if none of its cells is finished.

    Attributes:
        value: the row's varied value: the merge method, alpha, K or steps; empty for a parent.
        name: the search that found the model, or the parent.
        seeds: the pooled seeds.
        recipes: the recipe of each seed.
    """

    value: str
    name: str
    seeds: tuple[int, ...]
    alignment: Rate | None = None
    over_refusal: Rate | None = None
    accuracy: dict[str, Rate] = {}
    recipes: tuple[dict[str, Any] | None, ...] = ()

    @property
    def mean_accuracy(self) -> float | None:
        """Unweighted mean over tasks, as in the paper."""
        return sum(rate.rate for rate in self.accuracy.values()) / len(self.accuracy) if self.accuracy else None


class Effect(_Frozen):
    """Differences between the safety-aware and the domain-only merge of the same cells; null if one is missing.

    Attributes:
        value: the row's merge method.
        alignment_gain: mean of `gains`.
        gains: difference in alignment of each seed.
        accuracy_change: mean over the seeds of the difference in mean accuracy over tasks.
        higher: whether alignment is higher.
        ten_points: whether alignment is at least 10 points higher.
        accuracy_kept: whether accuracy is at most 3 points lower.
    """

    value: str
    alignment_gain: float | None = None
    gains: tuple[float, ...] = ()
    accuracy_change: float | None = None
    higher: bool | None = None
    ten_points: bool | None = None
    accuracy_kept: bool | None = None


class TableSummary(_Frozen):
    """One table of the paper.

    Attributes:
        average_gain: mean of the rows' alignment gains; null while a row is missing.
    """

    rows: tuple[Row, ...]
    effects: tuple[Effect, ...] = ()
    average_gain: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the average gain meets the target; None while a row is missing."""
        return None if self.average_gain is None else self.average_gain >= LEAST_GAIN - _ROUNDING


class Cost(_Frozen):
    """Time and memory of a finished cell."""

    cell: str
    seconds: float
    peak_memory_bytes: int


class Summary(_Frozen):
    """The content of the page; `--json` prints it."""

    benchmark: str = "paper"
    command: str
    study: dict[str, Any]
    seeds: tuple[int, ...]
    tables: dict[Table, TableSummary]
    costs: tuple[Cost, ...]
    missing: tuple[str, ...]


def summarize(study: Study, out: Path, seeds: Sequence[int], tables: Sequence[Table], command: str) -> Summary:
    """Read the finished cells of a study.

    Args:
        study: the study.
        out: the study's folder.
        seeds: seeds of the tables; ablations have those below `ablation_seeds`.
        tables: the tables to make.
        command: the command that makes the page, which shows it.

    Raises:
        RunError: a `result.json` cannot be read.
    """
    found = {cell.folder: finished_result(RunFolder(out / cell.folder)) for cell in plan(study, seeds, tables)}
    results = {folder: result for folder, result in found.items() if result is not None}
    return Summary(
        command=command,
        study=study.model_dump(mode="json"),
        seeds=tuple(seeds),
        tables={table: _TableReader(study, results, table, seeds).table_summary() for table in tables},
        costs=tuple(
            Cost(cell=folder, seconds=result.seconds, peak_memory_bytes=result.peak_memory_bytes)
            for folder, result in results.items()
        ),
        missing=tuple(folder for folder, result in found.items() if result is None),
    )


class _TableReader:
    """Makes one table from the finished cells."""

    def __init__(self, study: Study, results: Mapping[str, RunResult], table: Table, seeds: Sequence[int]) -> None:
        self._study, self._results, self._table = study, results, table
        self._seeds = [seed for seed in seeds if table not in ABLATIONS or seed < study.ablation_seeds]

    def table_summary(self) -> TableSummary:
        settings = settings_of(self._study, self._table)
        if not settings:
            return TableSummary(rows=())
        rows = [*self._parents(settings[0].pool), *(row for setting in settings for row in self._rows(setting))]
        if self._table in ABLATIONS:
            return TableSummary(rows=tuple(rows))
        effects = tuple(self._effect(setting) for setting in settings)
        gains = [effect.alignment_gain for effect in effects if effect.alignment_gain is not None]
        average = sum(gains) / len(gains) if gains and len(gains) == len(effects) else None
        return TableSummary(rows=tuple(rows), effects=effects, average_gain=average)

    def _parents(self, pool: Pool) -> Iterator[Row]:
        """Yield the parents, which one cell has measured."""
        spec = spec_of(self._study, pool)
        result = self._results.get(folder_of(self._study, own_setting(self._study, pool), 0))
        for name in (spec.pool.base, *(expert.model for expert in spec.pool.experts)):
            yield _row("", name, {0: read_model(result, name)} if result else {})

    def _rows(self, setting: Setting) -> Iterator[Row]:
        for name in self._names(setting):
            models = {seed: read_model(result, name) for seed, result in self._cells(setting).items()}
            yield _row(self._value(setting), name, models)

    def _names(self, setting: Setting) -> list[str]:
        if setting.method == "cocktail":
            return ["cocktail_expert_only", "cocktail"]
        own = setting == own_setting(self._study, setting.pool, setting.method)
        if self._table in ABLATIONS:
            return ["evomm_expert_only", "evomm"] if self._table == "table3" and (own or setting.real) else ["evomm"]
        return ["grid", "evomm_expert_only", "evomm"]

    def _value(self, setting: Setting) -> str:
        match self._table:
            case "fig3":
                return f"{setting.alpha:g}"
            case "table3":
                return f"real data, {setting.k}" if setting.real else f"{setting.k}"
            case "table4":
                return f"{setting.steps}"
        return setting.method

    def _cells(self, setting: Setting) -> dict[int, RunResult]:
        folders = {seed: folder_of(self._study, setting, seed) for seed in self._seeds}
        return {seed: self._results[folder] for seed, folder in folders.items() if folder in self._results}

    def _effect(self, setting: Setting) -> Effect:
        value, (plain, aware) = self._value(setting), self._names(setting)[-2:]
        pairs = [(read_model(result, plain), read_model(result, aware)) for result in self._cells(setting).values()]
        both = [(without, with_) for without, with_ in pairs if without and with_]
        gains = [
            with_.alignment.rate - without.alignment.rate
            for without, with_ in both
            if without.alignment and with_.alignment
        ]
        if not gains:
            return Effect(value=value)
        accuracies = [(without.mean_accuracy, with_.mean_accuracy) for without, with_ in both]
        changes = [after - before for before, after in accuracies if before is not None and after is not None]
        gain, change = fmean(gains), fmean(changes) if changes else None
        return Effect(
            value=value,
            alignment_gain=gain,
            gains=tuple(gains),
            accuracy_change=change,
            higher=gain > 0,
            ten_points=gain >= LEAST_GAIN - _ROUNDING,
            accuracy_kept=None if change is None else change >= -MOST_LOST - _ROUNDING,
        )


def _row(value: str, name: str, models: Mapping[int, ModelResult | None]) -> Row:
    """Pool a model's rates over seeds; identical weights count once (grid search gives the same merge in each seed)."""
    finished = {seed: model for seed, model in models.items() if model is not None}
    measured = distinct(list(finished.values()))
    tasks = dict.fromkeys(task for model in measured for task in model.accuracy)
    return Row(
        value=value,
        name=name,
        seeds=tuple(finished),
        alignment=_pooled(model.alignment for model in measured),
        over_refusal=_pooled(model.over_refusal for model in measured),
        accuracy={task: pool_rates([m.accuracy[task] for m in measured if task in m.accuracy]) for task in tasks},
        recipes=tuple(model.recipe for model in finished.values()),
    )


def _pooled(rates: Iterable[Rate | None]) -> Rate | None:
    known = [rate for rate in rates if rate is not None]
    return pool_rates(known) if known else None
