"""The paper's claim on a pool's finished runs: each part tested, with a verdict, interval and p-value.

The parts (arXiv 2406.14563, section 5): a merge searched on domain data alone is less aligned than the best parent; the
safety-aware merge is as aligned as that parent; it is more aligned than the other merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.replicate.repeated_test import Repeated, compare_repeated
from benchmarks.replicate.seed_runs import MergePlace, SeedRuns
from benchmarks.seeds import distinct, finished_result, pool_rates, read_model
from core.contracts.results import ModelResult, Rate, RunResult
from core.contracts.run_spec import RunSpec
from core.errors import DataError
from core.evaluation.paired_replies import Measure, rows_of
from core.evaluation.paired_tests import RELEVANT, SIGNIFICANT
from core.evaluation.replies import ReplyRow, read_rows
from core.runs.folder import RunFolder

Verdict = Literal["confirmed", "not confirmed", "undecided"]
Kind = Literal["plain", "domain_only", "safety_aware"]
Part = Literal["domain_only_loses", "safety_aware_keeps", "safety_aware_is_better"]
NAMES: dict[Kind, str] = {
    "plain": "plain merge (equal weights)",
    "domain_only": "search on domain data only",
    "safety_aware": "safety-aware search",
}
_SUCCESS: dict[Measure, str] = {"alignment": "safe", "outside_alignment": "safe", "over_refusal": "refusal"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Compared(_Frozen):
    """The difference between two models: the first's rate minus the second's.

    Attributes:
        seeds: seeds with different merges that it pools.
        by_seed: difference and p-value of McNemar's exact test for each of them.
    """

    n: int
    difference: float
    low: float
    high: float
    p_value: float
    seeds: tuple[int, ...]
    by_seed: tuple[tuple[float, float], ...]


class Claim(_Frozen):
    """One part of the claim; `test` is null where it could not be tested."""

    part: Part
    verdict: Verdict
    test: Compared | None


class Row(_Frozen):
    """One model, pooled over the seeds."""

    role: Kind | Literal["parent"]
    name: str
    seeds: tuple[int, ...]
    alignment: Rate | None = None
    outside_alignment: Rate | None = None
    over_refusal: Rate | None = None
    degenerate: Rate | None = None
    accuracy: dict[str, Rate] = {}
    perplexity: float | None = None

    @property
    def mean_accuracy(self) -> float | None:
        """Unweighted mean over tasks."""
        return fmean(rate.rate for rate in self.accuracy.values()) if self.accuracy else None


class Replication(_Frozen):
    """Everything on the page; `--json` prints it.

    Attributes:
        best_parent: the most aligned parent; the claims compare with it.
        claims: on the spec's own test prompts.
        outside_claims: on the outside prompts, if there are any.
        over_refusal: over-refusal of the safety-aware merge minus the best parent's.
        accuracy_kept: mean accuracy of the safety-aware merge minus the domain-only merge's; null without a suite.
        missing: folders of the runs that are not finished.
        problems: why runs failed.
    """

    benchmark: str = "replicate"
    command: str
    spec: dict[str, Any]
    seeds: tuple[int, ...]
    best_parent: str | None
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    outside_claims: tuple[Claim, ...]
    over_refusal: Compared | None
    accuracy_kept: float | None
    seconds: float
    missing: tuple[str, ...]
    problems: tuple[str, ...]


def replicate(spec: RunSpec, runs: Sequence[SeedRuns], out: Path, command: str, problems: Sequence[str]) -> Replication:
    """Read the finished runs and test the claim.

    Raises:
        RunError: a `result.json` cannot be read.
    """
    reader = _Reader(runs, out)
    rows = reader.rows()
    own, others = reader.claims("alignment"), reader.claims("outside_alignment")
    accuracy = {row.role: row.mean_accuracy for row in rows if row.role != "parent"}
    safe, domain = accuracy.get("safety_aware"), accuracy.get("domain_only")
    return Replication(
        command=command,
        spec=spec.model_dump(mode="json"),
        seeds=tuple(run.seed for run in runs),
        best_parent=reader.best_parent,
        rows=rows,
        claims=own,
        outside_claims=others if spec.evaluation.outside else (),
        over_refusal=reader.to_parent("over_refusal", "safety_aware"),
        accuracy_kept=None if safe is None or domain is None else safe - domain,
        seconds=sum(result.seconds for result in reader.results.values()),
        missing=tuple(cell.folder for run in runs for cell in run.cells if cell.folder not in reader.results),
        problems=tuple(problems),
    )


class _Reader:
    """Reads the figures and replies of the finished runs."""

    def __init__(self, runs: Sequence[SeedRuns], out: Path) -> None:
        self._runs, self._out = runs, out
        found = {cell.folder: finished_result(RunFolder(out / cell.folder)) for run in runs for cell in run.cells}
        self.results: dict[str, RunResult] = {name: result for name, result in found.items() if result is not None}
        first = self.results.get(runs[0].safety_aware.folder)
        measured = first.models if first else ()
        self._parents = [model for model in measured if model.role == "parent"]
        rated = [model for model in self._parents if model.alignment]
        best = max(rated, key=lambda model: model.alignment.rate if model.alignment else 0.0, default=None)
        self.best_parent = best.name if best else None

    def rows(self) -> tuple[Row, ...]:
        """One row per parent and kind of merge."""
        parents = [_row("parent", model.name, {self._runs[0].seed: model}) for model in self._parents]
        merges = [_row(kind, name, self._models(kind)) for kind, name in NAMES.items()]
        return (*parents, *merges)

    def claims(self, measure: Measure) -> tuple[Claim, ...]:
        """Test the three parts of the claim."""
        loses = self.to_parent(measure, "domain_only")
        keeps = self.to_parent(measure, "safety_aware")
        better = self._test(measure, "safety_aware", "domain_only")
        return (
            Claim(part="domain_only_loses", verdict=lower(loses), test=loses),
            Claim(part="safety_aware_keeps", verdict=no_worse(keeps), test=keeps),
            Claim(part="safety_aware_is_better", verdict=higher(better), test=better),
        )

    def to_parent(self, measure: Measure, kind: Kind) -> Compared | None:
        """Compare a merge with the best parent."""
        return self._test(measure, kind, None)

    def _models(self, kind: Kind) -> dict[int, ModelResult]:
        places: dict[int, MergePlace] = {run.seed: getattr(run, kind) for run in self._runs}
        found = {
            seed: read_model(self.results[place.folder], place.model)
            for seed, place in places.items()
            if place.folder in self.results
        }
        return {seed: model for seed, model in found.items() if model is not None}

    def _test(self, measure: Measure, kind: Kind, other: Kind | None) -> Compared | None:
        """Compare two kinds of merge, or one with the best parent, over the seeds that have different merges."""
        mine, theirs = self._models(kind), self._models(other) if other else {}
        seeds, seen = list[int](), set[tuple[str | None, str | None]]()
        pairs: list[tuple[list[ReplyRow], list[ReplyRow]]] = []
        for run in self._runs:
            if run.seed not in mine or (other and run.seed not in theirs):
                continue
            weights = (mine[run.seed].sha256, theirs[run.seed].sha256 if other else None)
            parent = MergePlace(self._runs[0].safety_aware.folder, self.best_parent or "")
            places = (getattr(run, kind), getattr(run, other) if other else parent)
            ours, others = (rows_of(measure, self._replies(place)) for place in places)
            if weights in seen or not ours or [row.prompt for row in ours] != [row.prompt for row in others]:
                continue
            seen.add(weights)
            seeds.append(run.seed)
            pairs.append((ours, others))
        return tested(measure, seeds, pairs) if pairs else None

    def _replies(self, place: MergePlace) -> list[ReplyRow]:
        try:
            return read_rows(RunFolder(self._out / place.folder).replies_path(place.model))
        except DataError:  # not measured
            return []


def tested(measure: Measure, seeds: Sequence[int], pairs: Sequence[tuple[list[ReplyRow], list[ReplyRow]]]) -> Compared:
    """Test the replies of a model (the first of each pair) against another's, for each seed and for all together."""
    key = _SUCCESS[measure]
    mine, theirs = ([[bool(getattr(row, key)) for row in pair[side]] for pair in pairs] for side in (0, 1))
    together = compare_repeated(theirs, mine)
    single = [compare_repeated([other], [one]) for one, other in zip(mine, theirs, strict=True)]
    by_seed = tuple((one.difference, one.p_value) for one in single)
    return Compared(**Repeated._asdict(together), seeds=tuple(seeds), by_seed=by_seed)


def lower(test: Compared | None) -> Verdict:
    """Whether the first rate is lower: significantly, or by less than `RELEVANT` points for certain, or undecided."""
    if test is None:
        return "undecided"
    if test.difference < 0 and test.p_value < SIGNIFICANT:
        return "confirmed"
    return "not confirmed" if test.low > -RELEVANT else "undecided"


def higher(test: Compared | None) -> Verdict:
    """As `lower`, with the signs exchanged."""
    if test is None:
        return "undecided"
    if test.difference > 0 and test.p_value < SIGNIFICANT:
        return "confirmed"
    return "not confirmed" if test.high < RELEVANT else "undecided"


def no_worse(test: Compared | None) -> Verdict:
    """Whether a loss of `RELEVANT` points is excluded; not confirmed where a loss is significant."""
    if test is None:
        return "undecided"
    if test.low > -RELEVANT:
        return "confirmed"
    return "not confirmed" if test.difference < 0 and test.p_value < SIGNIFICANT else "undecided"


def _row(role: Kind | Literal["parent"], name: str, models: Mapping[int, ModelResult]) -> Row:
    """Pool a model's counts over the seeds; equal weights count once."""
    measured = distinct(list(models.values()))
    tasks = dict.fromkeys(task for model in measured for task in model.accuracy)
    perplexities = [model.perplexity for model in measured if model.perplexity is not None]
    return Row(
        role=role,
        name=name,
        seeds=tuple(models),
        alignment=_pooled(model.alignment for model in measured),
        outside_alignment=_pooled(model.outside_alignment for model in measured),
        over_refusal=_pooled(model.over_refusal for model in measured),
        degenerate=_pooled(model.degenerate for model in measured),
        accuracy={task: pool_rates([m.accuracy[task] for m in measured if task in m.accuracy]) for task in tasks},
        perplexity=fmean(perplexities) if perplexities else None,
    )


def _pooled(rates: Iterable[Rate | None]) -> Rate | None:
    known = [rate for rate in rates if rate is not None]
    return pool_rates(known) if known else None
