"""The runs of the comparison, and the merges of each that become rows.

One run searches with TIES and makes the training pairs; it also gives the plain merge, grid search, domain-only EvoMM
and LM-Cocktail. Each published method has a run of its own on the same pairs: its `equal` baseline has the published
parameters (our defaults where a paper gives none), and EvoMM searches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.paper.names import NAMES
from benchmarks.paper.plan import Cell, Pool, spec_of
from benchmarks.paper.study import Study
from core.contracts.merge_methods import METHODS, TASK_ARITHMETIC, rival_methods
from core.contracts.optimizers import EQUAL, OPTIMIZERS
from core.contracts.run_spec import spec_from_dict
from core.contracts.search_spec import MODULES
from core.errors import SpecError
from core.evaluation.suites import probe_question_files

FIRST = "ties"
"""The cell that makes the pairs, with the searches that the others are tested against."""
EVOMM = "evomm"
GRADIENT = "gradient"


@dataclass(frozen=True)
class Scale:
    """How large the runs are; None = as the study says.

    Attributes:
        limit: most prompts and questions per file.
        steps: candidates of each search.
        k: pairs of each training set.
    """

    limit: int | None = None
    steps: int | None = None
    k: int | None = None


class Entry(NamedTuple):
    """One row: the merge `model` of the cell `cell`.

    Attributes:
        cell: name of the cell.
        model: name in the cell's result.
        title: name in the table.
        group: `parent`, `plain`, `search` or `rival`.
    """

    cell: str
    model: str
    title: str
    group: str


def cell_names() -> list[str]:
    """Return the names of the cells of a pool and a seed, the one that makes the data first."""
    return [FIRST, *([GRADIENT] if GRADIENT in OPTIMIZERS else []), *rival_methods()]


def entries(study: Study, pool: Pool) -> list[Entry]:
    """Return the rows of a pool in the order of the table."""
    spec = spec_of(study, pool)
    parents = [Entry(FIRST, name, f"`{name}`", "parent") for name in (spec.pool.base, *_experts(study, pool))]
    rows = [*parents, Entry(FIRST, EQUAL, "plain merge (TIES, equal weights)", "plain")]
    searches = [*_compared(study, pool), EVOMM]
    rows += [Entry(FIRST, name, NAMES[name], "search") for name in searches if name != EQUAL]
    if GRADIENT in OPTIMIZERS:
        rows.append(Entry(GRADIENT, GRADIENT, OPTIMIZERS[GRADIENT].title, "search"))
    for method in rival_methods():
        title, plain = METHODS[method].page_title or METHODS[method].title, METHODS[method].plain_title.lower()
        rows.append(Entry(method, EQUAL, f"{title}, {plain}", "rival"))
        rows.append(Entry(method, EVOMM, f"{title}, searched", "rival"))
    return rows


def cells(study: Study, pool: Pool, seeds: Sequence[int], ancestor: str | None, scale: Scale) -> list[Cell]:
    """Return the runs of a pool.

    Args:
        study: of `benchmarks.paper`; it has the pools.
        pool: which of them.
        seeds: of the searches.
        ancestor: the unaligned model that the pool's base was aligned from; None = the study's.
        scale: how large the runs are.

    Raises:
        SpecError: there is no ancestor, or a run is not possible.
    """
    ancestor = ancestor or spec_of(study, pool).pool.ancestor
    if ancestor is None:
        message = "The published methods need an unaligned ancestor, but the study's pool names none."
        raise SpecError(message, "Give one with --ancestor MODEL.", code="no-ancestor")
    return [_cell(study, pool, name, seed, ancestor, scale) for seed in seeds for name in cell_names()]


def folder_of(pool: Pool, name: str, seed: int) -> str:
    """Return the folder of a cell, below the comparison's folder."""
    return f"{pool}/{name}/seed-{seed}"


def _cell(study: Study, pool: Pool, name: str, seed: int, ancestor: str, scale: Scale) -> Cell:
    values = spec_of(study, pool).model_dump(mode="json")
    values["pool"]["ancestor"] = ancestor if name in METHODS and METHODS[name].needs_ancestor else None
    values["search"] |= _search(study, pool, name, seed)
    if name == GRADIENT:
        values["search"] |= study.gradient.get("search", {})
        values["data"] |= study.gradient.get("data", {})
    values["search"]["steps"] = scale.steps or values["search"]["steps"]
    values["evaluation"]["parents"] = name == FIRST and seed == 0
    values["evaluation"]["limit"] = scale.limit or values["evaluation"]["limit"]
    values["export"]["folder"] = False
    for part in ("safety", "domain"):
        values["data"][part]["k"] = scale.k or values["data"][part]["k"]
    return Cell(
        folder_of(pool, name, seed), spec_from_dict(values), None if name == FIRST else folder_of(pool, FIRST, seed)
    )


def _search(study: Study, pool: Pool, name: str, seed: int) -> dict[str, Any]:
    if name == FIRST:
        return {"method": FIRST, "seed": seed, "compare": _compared(study, pool)}
    if name == GRADIENT:
        genome = {"layer_granularity": 1, "filters": [MODULES]}
        return {"method": TASK_ARITHMETIC, "optimizer": GRADIENT, "genome": genome, "seed": seed, "compare": []}
    return {"method": name, "seed": seed, "compare": [EQUAL]}


def _compared(study: Study, pool: Pool) -> list[str]:
    """Return the baselines of the first cell; grid search needs probe questions."""
    grid = ["grid"] if probe_question_files(spec_of(study, pool)) else []
    return [EQUAL, *grid, "evomm_expert_only", "cocktail"]


def _experts(study: Study, pool: Pool) -> list[str]:
    return [expert.model for expert in spec_of(study, pool).pool.experts]
