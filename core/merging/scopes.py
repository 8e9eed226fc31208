"""Scopes: the part of a model's tensors that a recipe gives numbers of their own.

A scope is a range of blocks, a part of tensor names, or both, as in mergekit's slices and filters. Tensors outside the
blocks go as mergekit has them: embeddings with the first block, the final norm and the output layer with the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, model_validator

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_BEFORE = re.compile(r"(?:^|\.)(?:embed_tokens|embed_positions|embed_in|word_embeddings|wte|wpe)\.")


class Scope(BaseModel):
    """Numbers of some tensors, the first scope that holds a tensor counts.

    Attributes:
        blocks: first block and the one after the last; None = all.
        filter: a part of the tensors' names; None = all.
        weights: as the recipe's.
        densities: as the recipe's.
    """

    model_config = ConfigDict(frozen=True)

    blocks: tuple[int, int] | None = None
    filter: str | None = None
    weights: tuple[float, ...]
    densities: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _holds_a_block(self) -> Scope:
        if self.blocks is not None and not 0 <= self.blocks[0] < self.blocks[1]:
            raise ValueError(f"blocks {self.blocks[0]} to {self.blocks[1]} are none")
        return self

    def holds(self, tensor: str, block: int) -> bool:
        """Whether a tensor belongs here.

        Args:
            tensor: its name.
            block: as `block_of` says.
        """
        return self.holds_block(block) and (self.filter is None or self.filter in tensor)

    def holds_block(self, block: int) -> bool:
        return self.blocks is None or self.blocks[0] <= block < self.blocks[1]

    @property
    def place(self) -> str:
        """Which tensors, in words such as `blocks 5-9, self_attn` (both ends included)."""
        return place(self.blocks, self.filter)


def place(blocks: tuple[int, int] | None, name_part: str | None) -> str:
    """A range of blocks and a part of tensor names in words; "all" for neither."""
    parts = []
    if blocks is not None:
        first, last = blocks[0], blocks[1] - 1
        parts.append(f"block {first}" if first == last else f"blocks {first}-{last}")
    if name_part is not None:
        parts.append(name_part)
    return ", ".join(parts) or "all"


@lru_cache(maxsize=1 << 14)
def block_of(tensor: str, blocks: int) -> int:
    """Number of the block that a tensor belongs to or goes with.

    Args:
        tensor: its name.
        blocks: how many the model has.
    """
    if found := _BLOCK.search(tensor):
        return int(found[1])
    return 0 if _BEFORE.search(tensor) else max(0, blocks - 1)


def count_blocks(tensors: Iterable[str]) -> int:
    """How many blocks a model with these tensors has; 0 where their names don't tell."""
    return max((int(found[1]) + 1 for name in tensors if (found := _BLOCK.search(name))), default=0)
