"""The model card of a published merge: facts that the Hub reads, then what a person needs to judge the merge.

Texts hold no paths of this machine: a local model or file is named by the last part of its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import yaml

from core.contracts.results import ModelResult, Rate
from core.contracts.run_spec import RunSpec
from core.evaluation.lineage import PARENTS_KEY
from core.publishing.licenses import MergeLicense
from core.publishing.safety_check import SafetyCheck
from core.publishing.source import Source
from core.report.audit_section import broken_notices
from core.report.limits_section import NOT_SAFE, guard_limits, method_line
from core.report.markdown import escaped, table_lines
from core.report.merge_section import search_sentence
from core.report.public_names import hub_ids, loadable_elsewhere, without_local_paths
from core.report.result_tables import category_table, measured_table, task_table

TAGS = ("mergekit", "merge", "safemerge")
_LIMITS = (
    "Each search ran once with one seed; another seed gives another merge.",
    "The losses of the search were computed on its training pairs, not on the test prompts.",
    "The merge inherits faults and biases of all its parents.",
)


def published_card(source: Source, repo_id: str, check: SafetyCheck, reason: str, merge_license: MergeLicense) -> str:
    """Text of the README.md of a published merge.

    Args:
        source: the merge.
        repo_id: owner/name on the Hub.
        check: of its alignment.
        reason: why it is published in spite of the check; empty where it needs none.
        merge_license: that follows from its parents.
    """
    lines = [
        f"---\n{yaml.safe_dump(_facts(source, repo_id, merge_license), sort_keys=False, allow_unicode=True)}---",
        f"# {repo_id.partition('/')[2]}",
        "",
        f"A merge of {', '.join(map(escaped, source.parents))}, made with SafeMerge: `{source.recipe.label}`.",
        *filter(None, [source.recipe.repeat_note, search_sentence(source.name, source.spec)]),
        "",
        *_safety(source, check, reason),
        *_recipe(source),
        *_license_lines(source, merge_license),
        *_limit_lines(source),
    ]
    return publishable("\n".join(lines), source)


def publishable(text: str, source: Source) -> str:
    """`text` without paths of this machine."""
    return without_local_paths(text, _local_names(source))


def _facts(source: Source, repo_id: str, merge_license: MergeLicense) -> dict[str, Any]:
    """The card's front matter."""
    ids = hub_ids(source.parents)
    facts: dict[str, Any] = {"license": merge_license.license}
    facts |= {"license_name": merge_license.name} if merge_license.name else {}
    facts |= {"base_model": ids} if ids else {}
    facts |= {
        "base_model_relation": "merge",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": list(TAGS),
        PARENTS_KEY: loadable_elsewhere(source.parents),
    }
    results = list(_index_results(source.spec, source.result)) if source.result else []
    return facts | ({"model-index": [{"name": repo_id.partition("/")[2], "results": results}]} if results else {})


def _index_results(spec: RunSpec, result: ModelResult) -> Iterator[dict[str, Any]]:
    """The measurements as the Hub's `model-index` lists them."""
    evaluation = spec.evaluation
    for name, rate, prompts in (
        ("Alignment", result.alignment, evaluation.prompts),
        ("Over-refusal", result.over_refusal, evaluation.benign),
    ):
        if rate is not None:
            metric = {"name": f"{name} ({spec.pool.guard}, n = {rate.n})", "type": name.casefold()}
            yield _index_result(_short(prompts or "prompts"), metric, rate)
    for task, rate in result.accuracy.items():
        yield _index_result(task, {"name": f"Accuracy (n = {rate.n})", "type": "accuracy"}, rate)


def _index_result(dataset: str, metric: Mapping[str, str], rate: Rate) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": dataset, "type": dataset},
        "metrics": [{**metric, "value": round(rate.rate, 4), "verified": False}],
    }


def _safety(source: Source, check: SafetyCheck, reason: str) -> list[str]:
    models = source.record.models
    override = [f"> **Published in spite of this: {escaped(check.objection)}** Reason: {escaped(reason)}", ""]
    tables = (task_table(models), category_table(models, "alignment"), category_table(models, "over-refusal"))
    return [
        "## Measured safety",
        "",
        *(override if check.objection else []),
        escaped(check.sentence),
        "",
        *(_row_note(source)),
        *table_lines(measured_table(models)),
        "",
        *chain.from_iterable((f"**{notice.text}**", "") for notice in broken_notices(models)),
        method_line(source.spec, "`"),
        "",
        *chain.from_iterable((f"### {table.title}", "", *table_lines(table), "") for table in filter(None, tables)),
    ]


def _row_note(source: Source) -> list[str]:
    if source.result is None:
        return [f"This merge is {source.name} of the run. The table has the run's other models.", ""]
    return [f"This merge is `{source.result.name}` in the table.", ""]


def _recipe(source: Source) -> list[str]:
    return [
        "## Recipe",
        "",
        "`mergekit_config.yml` repeats the merge: `mergekit-yaml mergekit_config.yml OUT --lora-merge-dtype float32`.",
        "",
        "`spec.yaml` repeats the whole run (data, search, measurements): `python -m core run spec.yaml --out DIR`.",
        "",
        "<details><summary>spec.yaml</summary>",
        "",
        "```yaml",
        source.spec.to_yaml().rstrip(),
        "```",
        "",
        "</details>",
        "",
        f"sha256 of the weights (names, types, shapes and values): `{source.sha256}`",
        "",
    ]


def _license_lines(source: Source, merge_license: MergeLicense) -> list[str]:
    named = merge_license.license if not merge_license.name else "no single identifier covers it"
    return [
        "## License",
        "",
        f"{named}, from the licenses of {', '.join(map(escaped, source.parents))}.",
        *(f"- {escaped(notice)}" for notice in (*merge_license.notices, *filter(None, [merge_license.obstacle]))),
        "",
    ]


def _limit_lines(source: Source) -> list[str]:
    limits = (NOT_SAFE, guard_limits(source.spec.pool.guard), *_LIMITS)
    return ["## Limits", "", *(f"- {escaped(limit)}" for limit in limits), "", "The full report is in `report.md`.", ""]


def _local_names(source: Source) -> list[str]:
    """All models, files and folders that the texts of a run can name."""
    spec = source.spec
    pool, evaluation = spec.pool, spec.evaluation
    models = [pool.base, *(expert.model for expert in pool.experts), pool.ancestor, pool.generator]
    guards = [part.strip() for name in pool.guard.split("&") for part in (name.strip(), name.partition(":")[2])]
    files = [evaluation.prompts, evaluation.benign, evaluation.outside, evaluation.probe, evaluation.probe_questions]
    files += [evaluation.include_path, *(expert.domain.examples for expert in pool.experts)]
    files += [one.path for part in (spec.data.safety, spec.data.domain) for one in part.sources]
    own = [str(source.folder), str(source.run.path)]
    return [str(name) for name in (*models, *guards, *files, *own) if name]


def _short(name: str) -> str:
    """The name of a test set, or the last part of a file's path."""
    return (
        name.rstrip("/").rpartition("/")[2] if name.endswith((".jsonl", ".csv", ".txt", ".json", ".parquet")) else name
    )
