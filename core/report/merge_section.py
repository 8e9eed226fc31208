"""Report sections on the pool, on each merge's search and recipe, and on the machine and the measured weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.merge_methods import METHODS
from core.contracts.optimizers import EQUAL, find_search
from core.contracts.removed import REMOVED_OPTIMIZERS
from core.contracts.results import WITHOUT, ModelResult
from core.contracts.run_spec import RunSpec
from core.merging.recipes import Recipe
from core.report.document import Block, Cell, Code, Facts, Table
from core.report.run_record import RunRecord

_GOALS = {
    "pareto": ", optimizes both losses (Pareto), chooses the merge by alpha",
    "constraint": ", lowest domain loss where the safety loss is at most the safest parent's plus the tolerance",
}


def search_sentence(name: str, spec: RunSpec) -> str:
    """A sentence on how the merge `name` was found; empty if no search of a run has that name."""
    if name.startswith(WITHOUT):
        left_out = name.removeprefix(WITHOUT)
        return f"The run's own merge without {left_out}; all other parameters are unchanged."
    if name == EQUAL and (info := METHODS[spec.search.method]).own:
        source = "defaults, some of which are ours" if info.own_defaults else "published parameters"
        return f"{info.title} ({info.source}) with its {source}; no search was run."
    if name == EQUAL:
        return "Every model of the pool has the same weight; no search was run."
    if name in REMOVED_OPTIMIZERS:
        return f"Search: {name}, which was removed after this run."
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
    goal = _GOALS.get(search.objective, "") if main else ""
    terms = f"alpha {search.alpha}, safety term {'on' if safety else 'off'}{goal}"
    return f"Search: {optimizer.name}, {budget} candidates, {terms}."


def pool_blocks(record: RunRecord) -> tuple[Block, ...]:
    """A table of the pool's models and settings, and the complete spec."""
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
        *([("generator of unsafe questions", spec.pool.generator)] if spec.pool.generator else []),
        ("guard", spec.pool.guard),
        ("method", spec.search.method),
        ("search", f"{spec.search.optimizer}, seed {spec.search.seed}"),
    ]
    return (Facts(tuple(facts)), _spec_code(spec))


def _spec_code(spec: AnySpec) -> Code:
    return Code("Complete spec", spec.to_yaml())


def merge_blocks(record: RunRecord) -> tuple[Block, ...]:
    """A table of the merges and their recipes, and mergekit's configuration of the saved merge."""
    merges = [model for model in record.models if model.recipe is not None]
    if not merges:
        return ()
    spec = record.spec if isinstance(record.spec, RunSpec) else None
    rows = tuple(
        (Cell(model.name), Cell(search_sentence(model.name, spec) if spec else ""), Cell(recipe_text(model.recipe)))
        for model in merges
    )
    blocks: list[Block] = [Table(("merge", "how it was found", "recipe"), rows, text_columns=3)]
    if (merged := record.merged) and merged.recipe:
        blocks.append(Code(f"Recipe of {merged.name}", json.dumps(merged.recipe, indent=2), "json"))
    if record.mergekit_config:
        blocks.append(Code("mergekit_config.yml of the saved merge", record.mergekit_config))
    return tuple(blocks)


def recipe_text(recipe: Mapping[str, Any] | None) -> str:
    """A recipe in one line; the raw JSON if this version cannot read it."""
    try:
        return Recipe.model_validate(recipe).label
    except ValidationError:
        return json.dumps(recipe)


def machine_blocks(record: RunRecord) -> tuple[Block, ...]:
    """Start, duration, memory, number format and device of the run, and the hashes of the measured weights."""
    view, loaded = record.view, record.loaded
    seconds = view.result.seconds if view.result else view.elapsed_s()
    peak = view.result.peak_memory_bytes if view.result else 0
    facts = [
        ("started", started_text(record)),
        ("working time", f"{seconds:.0f} s" if seconds is not None else "unknown"),
        ("peak memory", _gigabytes(peak) if peak else "not measured"),
        *([("planned memory", _gigabytes(view.host_bytes))] if view.host_bytes else []),
        *([("planned memory on the GPU", _gigabytes(view.device_bytes))] if view.device_bytes else []),
        *([("measured in", f"{loaded.dtype} on {loaded.device}")] if loaded else []),
        *(
            [("resumed", f"{record.resumed} times, pauses ({view.paused_s:.0f} s) are not counted")]
            * bool(record.resumed)
        ),
        *([("saved merge", _saved(record))] if view.exported else []),
    ]
    return (Facts(tuple(facts)), *_hashes(record.models))


def started_text(record: RunRecord) -> str:
    """Start of the run in UTC."""
    if record.view.started_at is None:
        return "unknown"
    return datetime.fromtimestamp(record.view.started_at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _saved(record: RunRecord) -> str:
    if not record.has_merged_model:
        return "saved, but no longer in the run's folder"
    exported, merged = record.view.exported, record.merged
    same = exported is not None and merged is not None and exported.sha256 == merged.sha256
    return "merged/, identical to the measured weights" if same else "merged/"


def _hashes(models: Sequence[ModelResult]) -> tuple[Block, ...]:
    rows = tuple((Cell(model.name), Cell(model.sha256)) for model in models if model.sha256)
    return (Table(("model", "sha256 of the measured weights"), rows, text_columns=2),) if rows else ()


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
