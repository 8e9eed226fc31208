"""Model cards (README.md) of saved merges: the models, the method, the search and the measured safety tables.

A candidate exported from a search has estimates only. Its card says so, and lists what was not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import yaml

from core.contracts.events import CandidateMeasured, CandidateScored
from core.contracts.results import ModelResult, Rate
from core.contracts.run_spec import RunSpec
from core.evaluation.lineage import PARENTS_KEY
from core.merging.recipes import Recipe
from core.report.audit_section import broken_notices, over_refusal_notices
from core.report.limits_section import NOT_SAFE, guard_limits, method_line
from core.report.markdown import table_lines
from core.report.merge_section import search_sentence
from core.report.public_names import hub_ids, loadable_elsewhere, without_local_paths
from core.report.result_tables import category_table, measured_table, task_table


def model_card(name: str, recipe: Recipe, spec: RunSpec, results: Sequence[ModelResult]) -> str:
    """Text of the README.md that is saved with a merge.

    Args:
        name: of the merge within the run (`evomm`, `equal`, ...).
        recipe: of the merge.
        spec: of the run.
        results: measurements so far, including the merge's.
    """
    lines = [*_head(name, recipe), *_search_lines(name, spec), "", "## Measured", "", *_measured(spec, results)]
    return _publishable(lines, spec)


def candidate_card(
    candidate: CandidateScored,
    spec: RunSpec,
    results: Sequence[ModelResult],
    same_as: str | None,
    probed: CandidateMeasured | None,
) -> str:
    """Text of the README.md that is saved with one candidate of a search.

    Args:
        candidate: with its recipe and its losses.
        spec: of the run.
        results: the run's measurements of parents, baselines and its own merge.
        same_as: name of the result with the same recipe; None if there is none.
        probed: the candidate's rates on the probe prompts; None if they were not measured.
    """
    recipe = Recipe.model_validate(candidate.recipe)
    if same_as is None:
        missing = "Its alignment, over-refusal and accuracy on the test prompts were not measured."
    else:
        missing = f"It has the same recipe as `{same_as}` below, which was measured on the test prompts."
    return _publishable(
        [
            *_head(f"{candidate.search}, candidate {candidate.candidate}", recipe),
            *_search_lines(candidate.search, spec),
            "",
            "## Estimated",
            "",
            "| safety loss | domain loss | alignment | accuracy |",
            "|---|---|---|---|",
            f"| {_loss(candidate.ce_safety)} | {_loss(candidate.ce_expert)} | "
            f"{_share(candidate.estimated_alignment)} | {_share(candidate.estimated_accuracy)} |",
            "",
            "Estimates on the training pairs: losses in nats per token; alignment and accuracy are the shares of "
            "refusals and answers that greedy decoding would begin. No reply was generated or judged.",
            *([_probe(spec, probed)] if probed else []),
            missing,
            "",
            "## Measurements of the run's models",
            "",
            *_measured(spec, results),
        ],
        spec,
    )


def _publishable(lines: Sequence[str], spec: RunSpec) -> str:
    """The card's text without paths of this machine."""
    pool, evaluation = spec.pool, spec.evaluation
    models = [pool.base, *(expert.model for expert in pool.experts), *filter(None, [pool.ancestor])]
    sets = (evaluation.prompts, evaluation.benign, evaluation.outside, evaluation.probe, evaluation.probe_benign)
    files = filter(None, sets)
    return without_local_paths("\n".join(lines), [*models, *(str(path) for path in files)])


def _head(name: str, recipe: Recipe) -> list[str]:
    models = (recipe.base, *recipe.experts)
    ids = hub_ids(models)
    fields = {"base_model": ids} if ids else {}
    fields |= {PARENTS_KEY: loadable_elsewhere(models)}
    front = yaml.safe_dump(fields | {"library_name": "transformers", "tags": ["merge", "safemerge"]}, sort_keys=False)
    return [
        f"---\n{front}---",
        f"# {name}: a merge of {', '.join((recipe.base, *recipe.experts))}",
        "",
        f"Merged with SafeMerge: `{recipe.label}` (mergekit configuration in `mergekit_config.yml`).",
        *([recipe.repeat_note] if recipe.repeat_note else []),
    ]


def _search_lines(name: str, spec: RunSpec) -> list[str]:
    sentence = search_sentence(name, spec)
    return [sentence] if sentence else []


def _measured(spec: RunSpec, results: Sequence[ModelResult]) -> list[str]:
    return [
        *chain.from_iterable((f"**{notice.text}**", "") for notice in over_refusal_notices(results)),
        *table_lines(measured_table(results)),
        "",
        *chain.from_iterable((f"**{notice.text}**", "") for notice in broken_notices(results)),
        method_line(spec, "`"),
        "",
        *_optional_tables(results),
        f"{NOT_SAFE} {guard_limits(spec.pool.guard)}",
        "",
    ]


def _optional_tables(results: Sequence[ModelResult]) -> list[str]:
    """Tables of accuracy and of categories; only those that have measurements."""
    tables = (task_table(results), category_table(results, "alignment"), category_table(results, "over-refusal"))
    lines: list[str] = []
    for table in filter(None, tables):
        lines += [f"### {table.title}", "", *table_lines(table), ""]
    return lines


def _probe(spec: RunSpec, probed: CandidateMeasured) -> str:
    return (
        f"Measured on the search's probe prompts (`{spec.evaluation.probe}`): alignment "
        f"{_rate(probed.alignment)}, accuracy {_rate(probed.accuracy)}."
    )


def _rate(rate: Rate | None) -> str:
    return "not measured" if rate is None else f"{rate.rate:.2f} [{rate.low:.2f}, {rate.high:.2f}] n={rate.n}"


def _loss(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "not estimated" if value is None else f"{value:.2f}"
