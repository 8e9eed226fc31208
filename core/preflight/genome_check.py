"""Whether the base has the groups of blocks and the tensors that a search's genome names, from metadata alone."""

from __future__ import annotations

from collections.abc import Iterator

from core.contracts.events import CheckRow
from core.contracts.run_spec import GenomeSpec, RunSpec
from core.errors import SpecError
from core.models.metadata import ModelMetadata
from core.search.evomm import population_size
from core.search.genome import Genome
from core.search.parameter_groups import layout_of


def check_genome(spec: RunSpec, base: ModelMetadata) -> Iterator[CheckRow]:
    """A row for `search.genome`; none where it is left as it is."""
    wanted = spec.search.genome
    if wanted == GenomeSpec():
        return
    try:
        layout = layout_of(wanted, base.own_tensors)
    except SpecError as error:
        yield CheckRow(model=str(base.ref), check="genome", status="error", detail=error.message, hint=error.hint)
        return
    anchor = spec.pool.ancestor or spec.pool.base
    members = (spec.pool.base, *(expert.model for expert in spec.pool.experts))
    experts = tuple(name for name in members if name != anchor)
    count = len(Genome(spec.search.method, anchor, experts, anchor in members, layout=layout).searched)
    detail = f"{count} numbers at most, {population_size(count)} candidates a generation"
    if wanted.layer_granularity:
        detail = f"{layout.block_groups} groups of {wanted.layer_granularity} of {layout.blocks} blocks: {detail}"
    if count > spec.search.steps:
        hint = "Raise search.steps, or make layer_granularity larger."
        detail += f", more numbers than the {spec.search.steps} candidates"
        yield CheckRow(model=str(base.ref), check="genome", status="warning", detail=detail, hint=hint)
        return
    yield CheckRow(model=str(base.ref), check="genome", status="ok", detail=detail)
