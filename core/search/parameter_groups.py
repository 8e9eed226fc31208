"""Which tensors share their searched numbers: groups of blocks and parts of tensor names, as in mergekit-evolve.

A cell is one group of blocks and one filter (or the rest); each cell has a full set of the method's numbers. A tensor's
numbers are those of its cell, or, when they are smooth, lie between those of the two nearest groups.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from core.contracts.run_spec import GenomeSpec
from core.errors import SpecError
from core.merging.scopes import block_of, count_blocks, place

GroupWeights = tuple[tuple[int, float], ...]
"""Groups with their shares, which add up to 1."""


@dataclass(frozen=True)
class ParameterGroup:
    """One group of blocks and one part of the tensor names; None stands for the rest."""

    group: int
    filter: str | None


@dataclass(frozen=True)
class Layout:
    """The cells of a model, and what is known of where experts differ from the base.

    Attributes:
        blocks: how many the model has; 0 where all share their numbers.
        granularity: blocks in a group; the last group may have fewer.
        filters: parts of tensor names; the first that fits counts.
        smooth: numbers go in straight lines from the first group to the last.
        changed: (block, filter) of the tensors that each expert changes; None = any may.
    """

    blocks: int = 0
    granularity: int | None = None
    filters: tuple[str, ...] = ()
    smooth: bool = False
    changed: tuple[frozenset[tuple[int, str | None]], ...] | None = None

    @property
    def groups(self) -> int:
        return 1 if self.granularity is None else -(-self.blocks // self.granularity)

    @property
    def cells(self) -> tuple[ParameterGroup, ...]:
        """By group, then by filter, the rest last."""
        return tuple(ParameterGroup(group, part) for group in range(self.groups) for part in (*self.filters, None))

    def group_weights(self, block: int) -> GroupWeights:
        """The groups that a block's numbers come from; as mergekit interpolates when they are smooth."""
        if self.granularity is None:
            return ((0, 1.0),)
        if not self.smooth:
            return ((block // self.granularity, 1.0),)
        along = block / (self.blocks - 1) if self.blocks > 1 else 1.0
        scaled = along * (self.groups - 1)
        below = int(scaled)
        share = scaled - below
        if share == 0.0 or below + 1 >= self.groups:
            return ((below, 1.0),)
        return ((below, 1.0 - share), (below + 1, share))

    def runs(self) -> tuple[tuple[tuple[int, int] | None, GroupWeights], ...]:
        """Runs of blocks with the same numbers, each with the groups they come from; one for all without groups."""
        if self.granularity is None:
            return ((None, ((0, 1.0),)),)
        step = 1 if self.smooth else self.granularity
        return tuple(
            ((start, min(start + step, self.blocks)), self.group_weights(start))
            for start in range(0, self.blocks, step)
        )

    def changers(self, cell: ParameterGroup, experts: int) -> tuple[int, ...]:
        """Numbers of the experts that change a tensor which the cell's numbers reach."""
        if self.changed is None:
            return tuple(range(experts))
        reached = {
            block
            for block in range(max(1, self.blocks))
            if any(group == cell.group for group, _ in self.group_weights(block))
        }
        return tuple(
            number
            for number, places in enumerate(self.changed)
            if any(part == cell.filter and block in reached for block, part in places)
        )

    def place(self, cell: ParameterGroup) -> str:
        """A cell in words, such as `blocks 5-9, self_attn`; a smooth group's is where its numbers hold alone."""
        name_part = cell.filter if cell.filter is not None else ("rest" if self.filters else None)
        if self.granularity is None:
            return place(None, name_part)
        if self.smooth:
            words = f"point {cell.group + 1} of {self.groups}"
            return f"{words}, {name_part}" if name_part else words
        start = cell.group * self.granularity
        return place((start, min(start + self.granularity, self.blocks)), name_part)


WHOLE = Layout()
"""All tensors share one set of numbers."""


def layout_of(spec: GenomeSpec, tensors: Iterable[str], changed: Mapping[str, Collection[str]] | None = None) -> Layout:
    """The layout that a spec asks for on a model.

    Args:
        spec: `search.genome`.
        tensors: names of the model's tensors.
        changed: names of the tensors in which each expert differs from the base, in the recipe's order of experts;
            None where that is not known yet (as where no expert differs at all, any tensor then counts as changed).

    Raises:
        SpecError: the model has fewer blocks than a group, none at all, or no tensor that a filter means.
    """
    names = list(tensors)
    blocks = count_blocks(names) if spec.layer_granularity is not None else 0
    _check(spec, names, blocks)
    plain = Layout(blocks, spec.layer_granularity, spec.filters, spec.smooth)
    if changed is None or not any(changed.values()):
        return plain
    where = _where(plain)
    found = tuple(frozenset(map(where, names)) for names in changed.values())
    return Layout(blocks, spec.layer_granularity, spec.filters, spec.smooth, found)


def _where(layout: Layout) -> Callable[[str], tuple[int, str | None]]:
    """What gives a tensor's block (0 without groups) and filter."""

    def where(tensor: str) -> tuple[int, str | None]:
        block = block_of(tensor, layout.blocks) if layout.granularity is not None else 0
        return block, next((part for part in layout.filters if part in tensor), None)

    return where


def _check(spec: GenomeSpec, names: list[str], blocks: int) -> None:
    size = spec.layer_granularity
    if size is not None and size > blocks:
        found = f"the model has {blocks}" if blocks else "the names of the model's tensors tell of none"
        hint = f"Choose a number from 1 to {blocks}, or leave layer_granularity out." if blocks else "Leave it out."
        raise SpecError(f"search.genome.layer_granularity is {size} blocks, {found}.", hint)
    where = _where(Layout(filters=spec.filters))
    used = {part for _, part in map(where, names)}
    for part in spec.filters:
        if part not in used:
            parts = sorted({piece for name in names for piece in name.split(".") if not piece.isdigit()})
            hint = f"Tensor names are made of {', '.join(parts[:24])}."
            raise SpecError(
                f"search.genome.filters: '{part}' is in no tensor's name (or an earlier filter has it).", hint
            )
