"""The model card of a merge: what was merged, how, and the measured safety table, which is that of the report.

A candidate that was taken from a search by its number has losses only: its card says so, and what nobody measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import yaml

from core.contracts.events import CandidateMeasured, CandidateScored
from core.contracts.results import ModelResult, Rate
from core.contracts.run_spec import RunSpec
from core.merging.recipes import Recipe
from core.report.audit_section import broken_notices
from core.report.limits_section import NOT_SAFE, guard_limits, method_line
from core.report.markdown import table_lines
from core.report.merge_section import search_sentence
from core.report.result_tables import category_table, measured_table, task_table


def model_card(name: str, recipe: Recipe, spec: RunSpec, results: Sequence[ModelResult]) -> str:
    """Text of the README.md saved with a merge.

    Args:
        name: of the merge within the run (`evomm`, `equal`, ...).
        recipe: how it was made.
        spec: the run's spec.
        results: what was measured so far, the merge included.
    """
    return "\n".join([*_head(name, recipe), *_found(name, spec), "", "## Measured", "", *_measured(spec, results)])


def candidate_card(
    candidate: CandidateScored,
    spec: RunSpec,
    results: Sequence[ModelResult],
    same_as: str | None,
    probed: CandidateMeasured | None,
) -> str:
    """Text of the README.md saved with one candidate of a search.

    Args:
        candidate: the candidate, as it was scored.
        spec: the run's spec.
        results: what the run measured: parents, baselines and its own merge.
        same_as: name of the one of `results` that has the very same recipe, if any.
        probed: what the search measured of it on the probe prompts, if it did.
    """
    recipe = Recipe.model_validate(candidate.recipe)
    if same_as is None:
        missing = "Its alignment, over-refusal and accuracy on the test prompts were not measured."
    else:
        missing = f"It is the same merge as `{same_as}` below, which was measured on the test prompts."
    return "\n".join(
        [
            *_head(f"{candidate.search}, candidate {candidate.candidate}", recipe),
            *_found(candidate.search, spec),
            "",
            "## Estimated",
            "",
            "| safety loss | domain loss | alignment | accuracy |",
            "|---|---|---|---|",
            f"| {_loss(candidate.ce_safety)} | {_loss(candidate.ce_expert)} | "
            f"{_share(candidate.estimated_alignment)} | {_share(candidate.estimated_accuracy)} |",
            "",
            "Estimates, from the training pairs that the search chose by: losses in nats a token, and the shares of "
            "refusals and answers that it would begin by itself. For them no reply was generated or judged.",
            *([_probe(spec, probed)] if probed else []),
            missing,
            "",
            "## Measured of the run's models",
            "",
            *_measured(spec, results),
        ]
    )


def _head(name: str, recipe: Recipe) -> list[str]:
    front = yaml.safe_dump(
        {"base_model": [recipe.base, *recipe.experts], "library_name": "transformers", "tags": ["merge", "safemerge"]},
        sort_keys=False,
    )
    return [
        f"---\n{front}---",
        f"# {name}: a merge of {', '.join((recipe.base, *recipe.experts))}",
        "",
        f"Merged with SafeMerge: `{recipe.label}` (mergekit configuration in `mergekit_config.yml`).",
        *([recipe.repeat_note] if recipe.repeat_note else []),
    ]


def _found(name: str, spec: RunSpec) -> list[str]:
    sentence = search_sentence(name, spec)
    return [sentence] if sentence else []


def _measured(spec: RunSpec, results: Sequence[ModelResult]) -> list[str]:
    return [
        *table_lines(measured_table(results)),
        "",
        *chain.from_iterable((f"**{notice.text}**", "") for notice in broken_notices(results)),
        method_line(spec, "`"),
        "",
        *_further(results),
        f"{NOT_SAFE} {guard_limits(spec.pool.guard)}",
        "",
    ]


def _further(results: Sequence[ModelResult]) -> list[str]:
    """Tables that are there where there was something to measure."""
    tables = (task_table(results), category_table(results, "alignment"), category_table(results, "over-refusal"))
    lines: list[str] = []
    for table in filter(None, tables):
        lines += [f"### {table.title}", "", *table_lines(table), ""]
    return lines


def _probe(spec: RunSpec, probed: CandidateMeasured) -> str:
    return (
        f"Measured on the few probe prompts of the search (`{spec.evaluation.probe}`): alignment "
        f"{_rate(probed.alignment)}, accuracy {_rate(probed.accuracy)}."
    )


def _rate(rate: Rate | None) -> str:
    return "not measured" if rate is None else f"{rate.rate:.2f} [{rate.low:.2f}, {rate.high:.2f}] n={rate.n}"


def _loss(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "not estimated" if value is None else f"{value:.2f}"
