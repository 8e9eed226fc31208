"""The runs that test the claim on a pool: for each seed a safety-aware search and one on domain data alone.

Where the optimizer has a domain-only baseline (`evomm_expert_only`), one run makes both merges. For another optimizer a
second run repeats the search on the first run's pairs with `search.safety: false`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.paper.plan import Cell
from core.contracts.optimizers import EQUAL, OPTIMIZERS, baselines
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.errors import SpecError


class MergePlace(NamedTuple):
    """Where a merge's figures and replies are: the folder of its run, and its name there."""

    folder: str
    model: str


class SeedRuns(NamedTuple):
    """The runs of one seed, and where their merges are."""

    seed: int
    cells: tuple[Cell, ...]
    safety_aware: MergePlace
    domain_only: MergePlace
    plain: MergePlace


def seed_runs(spec: RunSpec, seeds: Sequence[int]) -> list[SeedRuns]:
    """Return the runs of each seed; the first also measures the parents.

    Raises:
        SpecError: the spec measures no alignment, or its optimizer uses no safety data.
    """
    optimizer = OPTIMIZERS[spec.search.optimizer]
    if not optimizer.uses_safety_data:
        message = f"{optimizer.title} uses no safety data, so there is no claim about it to test."
        raise SpecError(message, "Choose another search.optimizer.", code="no-safety-data")
    if spec.evaluation.prompts is None:
        hint = "Name unsafe test prompts in evaluation.prompts."
        raise SpecError("The spec measures no alignment.", hint, code="no-test-prompts")
    return [_runs_of(spec, seed, parents=seed == seeds[0]) for seed in seeds]


def _runs_of(spec: RunSpec, seed: int, *, parents: bool) -> SeedRuns:
    own, baseline = spec.search.optimizer, f"{spec.search.optimizer}_expert_only"
    name, other = f"seed-{seed}", f"seed-{seed}-domain-only"
    shared = baseline in baselines()
    compare = [EQUAL, baseline] if shared else [EQUAL]
    first = _varied(spec, {"seed": seed, "safety": True, "compare": compare}, parents=parents)
    cells = [Cell(name, first, None)]
    if not shared:
        search = {"seed": seed, "safety": False, "compare": [], "objective": "weighted"}
        cells.append(Cell(other, _varied(spec, search, parents=False), name))
    domain_only = MergePlace(name, baseline) if shared else MergePlace(other, own)
    return SeedRuns(seed, tuple(cells), MergePlace(name, own), domain_only, MergePlace(name, EQUAL))


def _varied(spec: RunSpec, search: dict[str, Any], *, parents: bool) -> RunSpec:
    values = spec.model_dump(mode="json")
    values["search"] |= search
    values["evaluation"] |= {"parents": parents, "leave_one_out": False}
    values["export"]["folder"] = False
    return spec_from_dict(values)
