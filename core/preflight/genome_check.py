"""Checks from the base's metadata that it has the layer groups and tensors that `search.genome` names."""

from __future__ import annotations

from collections.abc import Iterator

from core.contracts.events import CheckRow
from core.contracts.run_spec import GenomeSpec, RunSpec
from core.errors import SpecError
from core.models.metadata import ModelMetadata
from core.preflight.check_rows import failed_row, ok_row, warning_row
from core.search.evomm import population_size
from core.search.genome import Genome
from core.search.parameter_groups import layout_of


def check_genome(spec: RunSpec, base: ModelMetadata) -> Iterator[CheckRow]:
    """Yield a row for `search.genome`; no row if it has its default value."""
    genome = spec.search.genome
    if genome == GenomeSpec():
        return
    try:
        layout = layout_of(genome, base.own_tensors)
    except SpecError as error:
        yield failed_row(base.ref, "genome", error)
        return
    anchor = spec.pool.ancestor or spec.pool.base
    members = (spec.pool.base, *(expert.model for expert in spec.pool.experts))
    experts = tuple(name for name in members if name != anchor)
    count = len(Genome(spec.search.method, anchor, experts, anchor in members, layout=layout).searched)
    detail = f"at most {count} parameters, {population_size(count)} candidates per generation"
    if genome.layer_granularity:
        detail = f"{layout.block_groups} groups of {genome.layer_granularity} of {layout.blocks} layers: {detail}"
    if count > spec.search.steps:
        detail += f", which is more parameters than candidates ({spec.search.steps})"
        yield warning_row(base.ref, "genome", detail, "Raise search.steps, or make layer_granularity larger.")
        return
    yield ok_row(base.ref, "genome", detail)
