"""What was merged and how: the pool, each merge's search in a sentence and its recipe, the machine and the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.optimizers import EQUAL, find_search
from core.contracts.results import WITHOUT, ModelResult
from core.contracts.run_spec import RunSpec
from core.merging.recipes import Recipe
from core.report.document import Block, Cell, Code, Facts, Table
from core.report.run_record import RunRecord

_GOALS = {
    "pareto": ", both losses at once, the merge by alpha",
    "constraint": ", best domain loss among candidates that keep to the safest parent's safety loss",
}


def search_sentence(name: str, spec: RunSpec) -> str:
    """How the merge called `name` was found; empty for a name that no search of a run has."""
    if name.startswith(WITHOUT):
        left_out = name.removeprefix(WITHOUT)
        return f"The run's own merge made again with {left_out} left out, its other numbers as they were."
    if name == EQUAL:
        return "Every model of the pool has the same weight; nothing was searched."
    found, search = find_search(name), spec.search
    if found is None or found.optimizer is None:
        return ""
    optimizer, main = found.optimizer, name == search.optimizer
    safety = found.uses_safety_data and (search.safety or not main)
    if not optimizer.takes_steps:
        data = "safety and domain" if safety else "domain"
        return optimizer.report.format(data=data, temperature=search.temperature)
    early = search.stop_when_flat or optimizer.may_stop_early
    budget = f"at most {search.steps}" if early else str(search.steps)
    raced = ", raced on nested subsets of the pairs" if search.racing and "racing" in optimizer.options else ""
    goal = _GOALS.get(search.objective, "") if main else ""
    terms = f"alpha {search.alpha}, safety term {'on' if safety else 'off'}{goal}{raced}"
    return f"Search: {optimizer.name}, {budget} candidates, {terms}."


def pool_blocks(record: RunRecord) -> tuple[Block, ...]:
    """The models that took part, what is asked of them, and the whole spec."""
    spec = record.spec
    if spec is None:
        return ()
    if isinstance(spec, ComparisonSpec):
        rows = tuple((compared.role, compared.model) for compared in spec.models)
        return (Facts((*rows, ("guard", spec.guard))), _spec_code(spec))
    facts = [
        ("base", spec.pool.base),
        *((f"expert ({expert.domain.name})", expert.model) for expert in spec.pool.experts),
        *([("ancestor", spec.pool.ancestor)] if spec.pool.ancestor else []),
        *([("writes unsafe questions", spec.pool.generator)] if spec.pool.generator else []),
        ("guard", spec.pool.guard),
        ("method", spec.search.method),
        ("search", f"{spec.search.optimizer}, seed {spec.search.seed}"),
    ]
    return (Facts(tuple(facts)), _spec_code(spec))


def _spec_code(spec: AnySpec) -> Code:
    return Code("The whole spec", spec.to_yaml())


def merge_blocks(record: RunRecord) -> tuple[Block, ...]:
    """How each merge was found, with its recipe, and mergekit's configuration of the run's own."""
    merges = [model for model in record.models if model.recipe is not None]
    if not merges:
        return ()
    spec = record.spec if isinstance(record.spec, RunSpec) else None
    rows = tuple(
        (Cell(model.name), Cell(search_sentence(model.name, spec) if spec else ""), Cell(recipe_words(model.recipe)))
        for model in merges
    )
    blocks: list[Block] = [Table(("merge", "how it was found", "recipe"), rows, text_columns=3)]
    if (merged := record.merged) and merged.recipe:
        blocks.append(Code(f"Recipe of {merged.name}", json.dumps(merged.recipe, indent=2), "json"))
    if record.mergekit_config:
        blocks.append(Code("mergekit_config.yml of the saved merge", record.mergekit_config))
    return tuple(blocks)


def recipe_words(recipe: Mapping[str, Any] | None) -> str:
    """A recipe in a line; one that this version does not know, as it was written."""
    try:
        return Recipe.model_validate(recipe).label
    except ValidationError:
        return json.dumps(recipe)


def machine_blocks(record: RunRecord) -> tuple[Block, ...]:
    """Where the figures come from: number format, device, time, memory; and which weights they belong to."""
    view, loaded = record.view, record.loaded
    seconds = view.result.seconds if view.result else view.elapsed_s()
    peak = view.result.peak_memory_bytes if view.result else 0
    facts = [
        ("started", started_words(record)),
        ("time of work", f"{seconds:.0f} s" if seconds is not None else "not known"),
        ("memory at its peak", _gigabytes(peak) if peak else "not measured"),
        *([("memory planned", _gigabytes(view.host_bytes))] if view.host_bytes else []),
        *([("of it on the GPU", _gigabytes(view.device_bytes))] if view.device_bytes else []),
        *([("figures from", f"{loaded.dtype} on {loaded.device}")] if loaded else []),
        *([("resumed", f"{record.resumed} times, pauses ({view.paused_s:.0f} s) not counted")] * bool(record.resumed)),
        *([("saved merge", _saved(record))] if view.exported else []),
    ]
    return (Facts(tuple(facts)), *_hashes(record.models))


def started_words(record: RunRecord) -> str:
    """When the run began, in UTC."""
    if record.view.started_at is None:
        return "not known"
    return datetime.fromtimestamp(record.view.started_at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _saved(record: RunRecord) -> str:
    if not record.has_merged_model:
        return "saved, not in the folder any more"
    exported, merged = record.view.exported, record.merged
    same = exported is not None and merged is not None and exported.sha256 == merged.sha256
    return "merged/, the weights that were measured" if same else "merged/"


def _hashes(models: Sequence[ModelResult]) -> tuple[Block, ...]:
    rows = tuple((Cell(model.name), Cell(model.sha256)) for model in models if model.sha256)
    return (Table(("model", "sha256 of the measured weights"), rows, text_columns=2),) if rows else ()


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
