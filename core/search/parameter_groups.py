"""Which tensors share their searched parameters: groups of blocks and parts of tensor names, as in mergekit-evolve.

A parameter group is one group of blocks and one filter (or the rest); each has a full set of the method's parameters. A
tensor has the parameters of its group, or, with a smooth layout, values interpolated between the two nearest groups.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from core.contracts.search_spec import MODULES, GenomeSpec
from core.errors import SpecError
from core.merging.scopes import block_of, count_blocks, scope_label

_MODULE = re.compile(r"\.(?:layers|h|blocks)\.\d+\.(.+)\.(?:weight|bias)$")

GroupWeights = tuple[tuple[int, float], ...]
"""Groups of blocks with their shares, which add up to 1."""


@dataclass(frozen=True)
class ParameterGroup:
    """One group of blocks and one filter; a filter of None is the tensors that no filter matches."""

    block_group: int
    filter: str | None


@dataclass(frozen=True)
class Layout:
    """The parameter groups of a model, and which of them hold tensors that an expert changes.

    Attributes:
        blocks: blocks of the model; 0 where all tensors share their parameters.
        granularity: blocks in a group; the last group may have fewer.
        filters: parts of tensor names; the first that fits counts.
        smooth: parameters are interpolated linearly from the first group to the last.
        changed: (block, filter) of the tensors that each expert changes; None = any tensor may change.
    """

    blocks: int = 0
    granularity: int | None = None
    filters: tuple[str, ...] = ()
    smooth: bool = False
    changed: tuple[frozenset[tuple[int, str | None]], ...] | None = None

    @property
    def block_groups(self) -> int:
        """Number of groups of blocks."""
        return 1 if self.granularity is None else -(-self.blocks // self.granularity)

    @property
    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """By group of blocks, then by filter, the rest last."""
        return tuple(
            ParameterGroup(group, part) for group in range(self.block_groups) for part in (*self.filters, None)
        )

    def group_weights(self, block: int) -> GroupWeights:
        """The groups that a block's parameters come from; a smooth layout interpolates as mergekit does."""
        if self.granularity is None:
            return ((0, 1.0),)
        if not self.smooth:
            return ((block // self.granularity, 1.0),)
        along = block / (self.blocks - 1) if self.blocks > 1 else 1.0
        scaled = along * (self.block_groups - 1)
        below = int(scaled)
        share = scaled - below
        if share == 0.0 or below + 1 >= self.block_groups:
            return ((below, 1.0),)
        return ((below, 1.0 - share), (below + 1, share))

    def block_ranges(self) -> tuple[tuple[tuple[int, int] | None, GroupWeights], ...]:
        """Ranges of blocks with the same parameters, each with its groups; one range, None, without groups."""
        if self.granularity is None:
            return ((None, ((0, 1.0),)),)
        step = 1 if self.smooth else self.granularity
        return tuple(
            ((start, min(start + step, self.blocks)), self.group_weights(start))
            for start in range(0, self.blocks, step)
        )

    def experts_changing(self, group: ParameterGroup, experts: int) -> tuple[int, ...]:
        """Indices of the experts that change a tensor which the group's parameters affect."""
        if self.changed is None:
            return tuple(range(experts))
        affected = {
            block
            for block in range(max(1, self.blocks))
            if any(number == group.block_group for number, _ in self.group_weights(block))
        }
        return tuple(
            number
            for number, places in enumerate(self.changed)
            if any(part == group.filter and block in affected for block, part in places)
        )

    def groups_of(self, tensor: str) -> GroupWeights:
        """Indices in `parameter_groups` of the groups that a tensor's parameters come from, with their shares."""
        block, part = _locator(self)(tensor)
        parts = (*self.filters, None)
        return tuple((group * len(parts) + parts.index(part), share) for group, share in self.group_weights(block))

    def first_block(self, group: ParameterGroup) -> int:
        """The first block that takes most of its parameters from a group."""
        shares = ((block, dict(self.group_weights(block))) for block in range(max(1, self.blocks)))
        nearest = [(one.get(group.block_group, 0.0), -block) for block, one in shares]
        return -max(nearest)[1]

    def label(self, group: ParameterGroup) -> str:
        """A group's tensors as text, such as `blocks 5-9, self_attn`; `point 2 of 4` in a smooth layout."""
        name_part = group.filter if group.filter is not None else ("rest" if self.filters else None)
        if self.granularity is None:
            return scope_label(None, name_part)
        if self.smooth:
            point = f"point {group.block_group + 1} of {self.block_groups}"
            return f"{point}, {name_part}" if name_part else point
        start = group.block_group * self.granularity
        return scope_label((start, min(start + self.granularity, self.blocks)), name_part)


WHOLE = Layout()
"""All tensors share one set of parameters."""


def layout_of(spec: GenomeSpec, tensors: Iterable[str], changed: Mapping[str, Collection[str]] | None = None) -> Layout:
    """The layout that a spec defines on a model.

    Args:
        spec: `search.genome`.
        tensors: names of the model's tensors.
        changed: names of the tensors in which each expert differs from the base, in the recipe's order of experts; None
            before that is known. Where no expert differs at all, every tensor counts as changed.

    Raises:
        SpecError: the model has fewer blocks than a group, none at all, or no tensor that a filter matches.
    """
    names = list(tensors)
    if MODULES in spec.filters:
        spec = spec.model_copy(update={"filters": modules_of(names)})
    blocks = count_blocks(names) if spec.layer_granularity is not None else 0
    _check(spec, names, blocks)
    plain = Layout(blocks, spec.layer_granularity, spec.filters, spec.smooth)
    if changed is None or not any(changed.values()):
        return plain
    locate = _locator(plain)
    places = tuple(frozenset(map(locate, names)) for names in changed.values())
    return Layout(blocks, spec.layer_granularity, spec.filters, spec.smooth, places)


def modules_of(tensors: Iterable[str]) -> tuple[str, ...]:
    """Filters that give every projection of a block parameters of its own, such as `self_attn.q_proj`.

    Norms stay in the rest. Longer names come first, because the first filter that fits counts.
    """
    found = (match[1] for name in tensors if (match := _MODULE.search(name)))
    modules = sorted({module for module in found if "norm" not in module.rsplit(".", 1)[-1]})
    return tuple(sorted(modules, key=lambda module: -len(module)))


def _locator(layout: Layout) -> Callable[[str], tuple[int, str | None]]:
    """A function from a tensor's name to its block (0 without groups) and filter."""

    def locate(tensor: str) -> tuple[int, str | None]:
        block = block_of(tensor, layout.blocks) if layout.granularity is not None else 0
        return block, next((part for part in layout.filters if part in tensor), None)

    return locate


def _check(spec: GenomeSpec, names: list[str], blocks: int) -> None:
    size = spec.layer_granularity
    if size is not None and size > blocks:
        found = f"the model has {blocks} blocks" if blocks else "no blocks are recognized in the model's tensor names"
        hint = f"Choose a number from 1 to {blocks}, or leave layer_granularity out." if blocks else "Leave it out."
        message = f"search.genome.layer_granularity is {size}, but {found}."
        raise SpecError(message, hint, code="too-few-blocks")
    locate = _locator(Layout(filters=spec.filters))
    used = {part for _, part in map(locate, names)}
    for part in spec.filters:
        if part not in used:
            parts = sorted({piece for name in names for piece in name.split(".") if not piece.isdigit()})
            hint = f"Choose a part of the tensor names: {', '.join(parts[:24])}."
            message = f"search.genome.filters: '{part}' matches no tensor that an earlier filter has not matched."
            raise SpecError(message, hint, code="unmatched-filter")
