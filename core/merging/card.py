"""The model card of a merge: what was merged, how, and the measured safety table, which is that of the report."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from core.merging.recipes import Recipe
from core.report.limits import NOT_SAFE, guard_limits, method_line
from core.report.markdown import table_lines
from core.report.measured import category_table, measured_table, task_table
from core.report.merges import search_sentence
from core.results import ModelResult
from core.specs import RunSpec


def model_card(name: str, recipe: Recipe, spec: RunSpec, results: Sequence[ModelResult]) -> str:
    """Text of the README.md saved with a merge.

    Args:
        name: of the merge within the run (`evomm`, `equal`, ...).
        recipe: how it was made.
        spec: the run's spec.
        results: what was measured so far, the merge included.
    """
    front = yaml.safe_dump(
        {"base_model": [recipe.base, *recipe.experts], "library_name": "transformers", "tags": ["merge", "safemerge"]},
        sort_keys=False,
    )
    return "\n".join(
        [
            f"---\n{front}---",
            f"# {name}: a merge of {', '.join((recipe.base, *recipe.experts))}",
            "",
            f"Merged with SafeMerge: `{recipe.label}` (mergekit configuration in `mergekit_config.yml`).",
            *([recipe.repeat_note] if recipe.repeat_note else []),
            *filter(None, [search_sentence(name, spec)]),
            "",
            "## Measured",
            "",
            *table_lines(measured_table(results)),
            "",
            method_line(spec, "`"),
            "",
            *_further(results),
            f"{NOT_SAFE} {guard_limits(spec.pool.guard)}",
            "",
        ]
    )


def _further(results: Sequence[ModelResult]) -> list[str]:
    """Tables that are there where there was something to measure."""
    tables = (task_table(results), category_table(results, "alignment"), category_table(results, "over-refusal"))
    lines: list[str] = []
    for table in filter(None, tables):
        lines += [f"### {table.title}", "", *table_lines(table), ""]
    return lines
