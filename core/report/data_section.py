"""The training pairs of a run in counts: kept and dropped pairs with reasons, sources, and answering models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from core.contracts.events import SampleSeen
from core.contracts.run_spec import RunSpec
from core.data.training_pairs import Dataset
from core.report.document import Block, Cell, Paragraph, Table
from core.report.result_tables import category_title
from core.report.run_record import RunRecord

DATASETS: tuple[Dataset, ...] = ("safety", "domain")


def data_blocks(record: RunRecord) -> tuple[Block, ...]:
    """Return the counts of both training sets; empty if the run has no questions."""
    samples = record.view.samples
    if not samples:
        return ()
    blocks: list[Block] = [_kept_table(record)]
    if record.view.data is None:
        blocks.insert(0, Paragraph("The data was not complete when the run ended."))
    blocks += [table for table in (_reasons(samples), _origins(samples), _verdicts(samples)) if table.rows]
    if categories := _categories(samples):
        blocks.append(categories)
    return tuple(blocks)


def _of(samples: Sequence[SampleSeen], dataset: Dataset, kept: bool | None = None) -> list[SampleSeen]:
    return [s for s in samples if s.dataset == dataset and (kept is None or s.kept == kept)]


def _kept_table(record: RunRecord) -> Table:
    spec, rows = record.spec, []
    for dataset in DATASETS:
        samples = _of(record.view.samples, dataset)
        requested = getattr(spec.data, dataset) if isinstance(spec, RunSpec) else None
        source, count = (f"{requested.source}", str(requested.k)) if requested else ("unknown", "unknown")
        kept = sum(sample.kept for sample in samples)
        rows.append(tuple(map(Cell, (dataset, source, count, str(kept), str(len(samples) - kept)))))
    return Table(("pairs", "source", "requested", "kept", "dropped"), tuple(rows), text_columns=2)


def _reasons(samples: Sequence[SampleSeen]) -> Table:
    rows = [
        (Cell(dataset), Cell(reason), Cell(str(count)))
        for dataset in DATASETS
        for reason, count in Counter(s.reason for s in _of(samples, dataset, False)).most_common()
    ]
    return Table(("pairs", "reason", "questions"), tuple(rows), "Reasons for dropped questions", text_columns=2)


def _origins(samples: Sequence[SampleSeen]) -> Table:
    """Return sources and answering models of the kept pairs; rows of one dataset or file are counted together."""
    rows = []
    for dataset in DATASETS:
        origins = Counter((_origin(s.source), s.answered_by or "unknown") for s in _of(samples, dataset, True))
        rows += [
            (Cell(dataset), Cell(source), Cell(by), Cell(str(count))) for (source, by), count in origins.most_common()
        ]
    return Table(("pairs", "question from", "answer from", "kept"), tuple(rows), "Sources of the pairs", text_columns=3)


def _origin(source: str) -> str:
    """Return a source without the number of its row."""
    return re.sub(r"#\d+$", "", source) or "unknown"


def _verdicts(samples: Sequence[SampleSeen]) -> Table:
    """Return how often each model of the pool refused the safety questions."""
    asked: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for sample in samples:
        for verdict in sample.verdicts:
            asked[verdict.model] += 1
            refused[verdict.model] += verdict.refusal
    rows = tuple((Cell(model), Cell(str(refused[model])), Cell(str(count))) for model, count in asked.items())
    return Table(("model", "refused", "safety questions asked"), rows, "Replies of the pool to safety questions")


def _categories(samples: Sequence[SampleSeen]) -> Table | None:
    kept = Counter(s.category for s in _of(samples, "safety", True) if s.category)
    rows = tuple((Cell(category_title(name)), Cell(str(count))) for name, count in sorted(kept.items()))
    return Table(("category", "pairs kept"), rows, "Safety pairs by category") if rows else None
