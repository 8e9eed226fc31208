"""The page of a study's results: the paper's tables in Markdown, with missed targets and missing runs marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.paper.names import METHODS, NAMES
from benchmarks.paper.plan import Table
from benchmarks.paper.summary import LEAST_GAIN, MOST_LOST, Effect, Row, Summary, TableSummary
from benchmarks.seeds import rate_text
from core.contracts.results import Rate

TITLES: dict[Table, tuple[str, str]] = {
    "table1": ("Table 1: two models", "method"),
    "table2": ("Table 2: three models", "method"),
    "fig3": ("Fig. 3: alpha", "alpha"),
    "table3": ("Table 3: number and source of the training pairs", "pairs"),
    "table4": ("Table 4: candidates of EvoMM", "candidates"),
}
MISSING = "missing"
_MOST_COLUMNS = 3


def as_markdown(summary: Summary, images: Mapping[Table, str]) -> str:
    """Return the whole page.

    Args:
        summary: the results.
        images: table -> link to its figure's file.
    """
    parts = [_head(summary)]
    parts += [_table(name, table, images.get(name)) for name, table in summary.tables.items()]
    parts.append(_costs(summary))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(summary: Summary) -> str:
    study = summary.study
    spec = study["two"] or study["three"]
    search, data, evaluation = spec["search"], spec["data"], spec["evaluation"]
    pairs = f"K={data['safety']['k']}+{data['domain']['k']} pairs"
    seeds = f"seeds {', '.join(map(str, summary.seeds))} (ablations: seeds below {study['ablation_seeds']})"
    limit = f"at most {evaluation['limit']} per file or task" if evaluation["limit"] else "whole files"
    gated = f"\nGated models (request access on the Hub): {', '.join(study['gated'])}." if study["gated"] else ""
    return f"""# Results: {study["title"]}

Made by `{summary.command}`.
EvoMM with {search["steps"]} candidates, {pairs}, alpha {search["alpha"]:g}, {seeds}.
Measured on held-out prompts and questions ({limit}), greedy replies of at most {evaluation["reply_tokens"]} tokens;
guard `{spec["pool"]["guard"]}`.
Hardware: {study["hardware"]}.
Time: {study["hours"]}.{gated}

Alignment: share of unsafe prompts answered safely (higher is better). Over-refusal: share of harmless look-alikes
refused (lower is better). Counts are pooled over the seeds, with 95 % Wilson intervals. All seeds use the same prompts,
so the intervals leave out the variation between prompts. A parent counts once, and so does a merge with identical
weights in several seeds."""


def _table(name: Table, table: TableSummary, image: str | None) -> str:
    if not table.rows:
        return ""
    title, varied = TITLES[name]
    parts = [f"## {title}", _rows(table.rows, varied)]
    if table.effects:
        parts += [_effects(table.effects), _average(table)]
    if image:
        parts.append(f"![{title}]({image})")
    return "\n\n".join(parts)


def _rows(rows: Sequence[Row], varied: str) -> str:
    tasks = list(dict.fromkeys(task for row in rows for task in row.accuracy))
    columns = [f"accuracy, {task}" for task in tasks] if 1 < len(tasks) <= _MOST_COLUMNS else ["accuracy"]
    return _table_text(
        [varied, "model", "alignment", "over-refusal", *columns, "seeds"],
        ([_value(row), NAMES.get(row.name, f"`{row.name}`"), *_figures(row, tasks), _seeds(row)] for row in rows),
    )


def _value(row: Row) -> str:
    return METHODS.get(row.value, row.value) or "parent"


def _figures(row: Row, tasks: Sequence[str]) -> list[str]:
    rates = [_rate(row.alignment), _rate(row.over_refusal)]
    if len(tasks) <= _MOST_COLUMNS:
        return rates + [_rate(row.accuracy.get(task)) for task in tasks or [""]]
    mean = row.mean_accuracy
    return [*rates, MISSING if mean is None else f"{mean:.3f} (mean of {len(row.accuracy)} tasks)"]


def _rate(rate: Rate | None) -> str:
    return MISSING if rate is None else rate_text(rate)


def _seeds(row: Row) -> str:
    return ", ".join(map(str, row.seeds)) or MISSING


def _effects(effects: Sequence[Effect]) -> str:
    return (
        "Safety-aware minus domain-only, in percentage points; the difference of each seed in brackets:\n\n"
        + _table_text(
            [
                "method",
                "alignment",
                "accuracy",
                "alignment higher?",
                f"at least {100 * LEAST_GAIN:.0f} points?",
                f"accuracy at most {100 * MOST_LOST:.0f} points lower?",
            ],
            (
                [
                    METHODS.get(effect.value, effect.value),
                    _gain(effect),
                    _points(effect.accuracy_change),
                    _verdict(effect.higher),
                    _verdict(effect.ten_points),
                    _verdict(effect.accuracy_kept),
                ]
                for effect in effects
            ),
        )
    )


def _gain(effect: Effect) -> str:
    seeds = f" ({', '.join(map(_points, effect.gains))})" if len(effect.gains) > 1 else ""
    return _points(effect.alignment_gain) + seeds


def _points(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:+.1f}"


def _verdict(value: bool | None) -> str:
    return {True: "yes", False: "**no**", None: MISSING}[value]


def _average(table: TableSummary) -> str:
    if table.average_gain is None:
        return f"Average over the rows: {MISSING}."
    reached = _verdict(table.reached)
    return (
        f"Average over the rows: {_points(table.average_gain)} points of alignment; at least {100 * LEAST_GAIN:.0f}: "
        f"{reached}."
    )


def _costs(summary: Summary) -> str:
    parts = ["## Runs"]
    if summary.costs:
        total = sum(cost.seconds for cost in summary.costs)
        peak = max(cost.peak_memory_bytes for cost in summary.costs)
        parts.append(
            f"{len(summary.costs)} of {len(summary.costs) + len(summary.missing)} runs are finished: "
            f"{total / 3600:.1f} hours in total, at most {peak / 1e9:.1f} GB of memory in one process."
        )
        parts.append(
            _table_text(["run", "minutes"], ([f"`{cost.cell}`", f"{cost.seconds / 60:.1f}"] for cost in summary.costs))
        )
    if summary.missing:
        parts.append("Not finished: " + ", ".join(f"`{cell}`" for cell in summary.missing) + ".")
    return "\n\n".join(parts)


def _table_text(head: Sequence[str], rows: Iterable[list[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
