"""The page of the comparison, and the section of `docs/results.md` that links to it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper.plan import Pool
from benchmarks.rivals.measured import Comparison, Row
from benchmarks.seeds import rate_text
from core.contracts.results import Rate
from core.evaluation.paired_tests import SIGNIFICANT

TITLES: dict[Pool, str] = {"two": "Two models", "three": "Three models"}
MISSING = "missing"


def as_page(comparison: Comparison) -> str:
    """Return the text of `docs/rivals.md`."""
    parts = [_head(comparison)]
    for pool, rows in comparison.pools.items():
        finding = _finding(rows)
        parts += [f"## {TITLES[pool]}", finding[0].upper() + finding[1:], _table(rows)]
        parts.append(f"![{TITLES[pool]}](images/rivals.svg)" if _drawn(rows) else "")
    if comparison.missing:
        parts.append("Not finished: " + ", ".join(f"`{name}`" for name in comparison.missing) + ".")
    return "\n\n".join(part for part in parts if part) + "\n"


def as_section(comparison: Comparison) -> str:
    """Return the section of `docs/results.md`: what the comparison found, with a link to its tables."""
    parts = [
        "## Published methods beside the searches",
        f"Made by `{comparison.command}`; all figures are in [rivals.md](rivals.md).",
    ]
    parts += [f"{TITLES[pool]}: {_finding(rows)}" for pool, rows in comparison.pools.items()]
    if any(map(_drawn, comparison.pools.values())):
        parts.append("![Alignment against accuracy](images/rivals.svg)")
    return "\n\n".join(parts)


def winners(rows: Sequence[Row]) -> list[Row]:
    """Return the published methods that are at least as good as safety-aware EvoMM in alignment and mean accuracy."""
    own = next((row for row in rows if row.title.startswith("EvoMM, safety-aware")), None)
    if own is None or own.alignment is None or own.mean_accuracy is None:
        return []
    return [
        row
        for row in rows
        if row.group == "rival"
        and row.alignment is not None
        and row.mean_accuracy is not None
        and (row.alignment.rate, row.mean_accuracy) != (own.alignment.rate, own.mean_accuracy)
        and row.alignment.rate >= own.alignment.rate
        and row.mean_accuracy >= own.mean_accuracy
    ]


def _finding(rows: Sequence[Row]) -> str:
    if not any(row.group == "rival" and row.alignment for row in rows):
        return "no published method is measured yet."
    if not (won := winners(rows)):
        return "no published method is at least as good as safety-aware EvoMM in both alignment and accuracy."
    named = ", ".join(f"{row.title} (over-refusal {row.over_refusal.rate:.2f})" for row in won if row.over_refusal)
    own = next(row for row in rows if row.title.startswith("EvoMM, safety-aware"))
    against = f" (its over-refusal: {own.over_refusal.rate:.2f})" if own.over_refusal else ""
    return f"at least as good as safety-aware EvoMM{against} in both alignment and accuracy: {named}."


def _head(comparison: Comparison) -> str:
    spec = (comparison.study.two or comparison.study.three).model_dump(mode="json")  # type: ignore[union-attr]
    scale = comparison.scale
    steps, k = scale.get("steps", spec["search"]["steps"]), scale.get("k", spec["data"]["safety"]["k"])
    limit = scale.get("limit", spec["evaluation"]["limit"]) or "all"
    seeds = ", ".join(map(str, comparison.seeds))
    return f"""# Published methods beside the searches

Made by `{comparison.command}`:
{comparison.study.title}, {k} + {k} training pairs, {steps} candidates per search, alpha {spec["search"]["alpha"]:g},
seeds {seeds}, at most {limit} test prompts or questions per file, guard `{spec["pool"]["guard"]}`;
{comparison.hours:.1f} hours of work. [The method](explanation/method.md#published-methods) has the formulas and papers.
SafeMERGE (Djuhera et al.) is another project than this one.

Counts are pooled over the seeds, with 95 % Wilson intervals; merges with identical weights count once. All seeds use
the same prompts. Perplexity of a neutral text: mean, and smallest to largest over the seeds. "vs" columns: difference
in points on the first seed's replies with the p-value of McNemar's exact test (bold: below {SIGNIFICANT}; not corrected
for the number of tests). Candidates: those of the search. Seconds: merging and scoring all of them, gradients and
importance scores included; a candidate that another search of the run had scored counts with the others' mean time.
Both are means over the seeds. Seconds are of a machine that may have had other work; they are no benchmark. "Default
parameters" are ours where the paper gives none."""


def _table(rows: Sequence[Row]) -> str:
    tasks = list(dict.fromkeys(task for row in rows for task in row.accuracy))
    references = list(dict.fromkeys(name for row in rows for name in row.tests))
    head = ["merge", "alignment", "over-refusal", *(f"accuracy, {task}" for task in tasks), "perplexity"]
    head += [f"{measure} vs {name}" for name in references for measure in ("alignment", "over-refusal")]
    head += ["candidates", "seconds"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        line = [row.title, _rate(row.alignment), _rate(row.over_refusal)]
        line += [_rate(row.accuracy.get(task)) for task in tasks]
        line.append(_perplexity(row.perplexity))
        line += [_test(row, name, measure) for name in references for measure in ("alignment", "over_refusal")]
        lines.append([*line, *("–" if value is None else f"{value:.0f}" for value in (row.candidates, row.seconds))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rate(rate: Rate | None) -> str:
    return MISSING if rate is None else rate_text(rate)


def _perplexity(values: tuple[float, float, float] | None) -> str:
    if values is None:
        return MISSING
    mean, low, high = values
    return f"{mean:.1f} ({low:.1f} to {high:.1f})" if low != high else f"{mean:.1f}"


def _test(row: Row, name: str, measure: str) -> str:
    test = row.tests.get(name, {}).get(measure)
    if test is None:
        return "–"
    text = f"{100 * test.difference:+.1f} (p {test.p_value:.2g})"
    return f"**{text}**" if test.p_value < SIGNIFICANT else text


def _drawn(rows: Sequence[Row]) -> bool:
    return any(row.group != "parent" and row.alignment and row.accuracy for row in rows)
