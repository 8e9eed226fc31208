"""Scopes: the tensors of a model for which a recipe has weights and densities of their own.

A scope is a range of blocks, a part of tensor names, or both, as in mergekit's slices and filters. Tensors outside the
blocks belong where mergekit puts them: embeddings to the first block, the final norm and the output layer to the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, model_validator

from core.contracts.validation import Refusal

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_BEFORE = re.compile(r"(?:^|\.)(?:embed_tokens|embed_positions|embed_in|word_embeddings|wte|wpe)\.")


class Scope(BaseModel):
    """Weights and densities of some tensors; the first scope that matches a tensor counts.

    Attributes:
        blocks: first block and the block after the last; None = all.
        filter: a part of the tensors' names; None = all.
        weights: as of a recipe.
        densities: as of a recipe.
    """

    model_config = ConfigDict(frozen=True)

    blocks: tuple[int, int] | None = None
    filter: str | None = None
    weights: tuple[float, ...]
    densities: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _check_blocks(self) -> Scope:
        if self.blocks is not None and not 0 <= self.blocks[0] < self.blocks[1]:
            message = f"blocks {self.blocks[0]} to {self.blocks[1]} are an empty range"
            raise Refusal("empty_range", message).error()
        return self

    def holds(self, tensor: str, block: int) -> bool:
        """Whether the scope matches a tensor.

        Args:
            tensor: its name.
            block: its block (`block_of`).
        """
        return self.holds_block(block) and (self.filter is None or self.filter in tensor)

    def holds_block(self, block: int) -> bool:
        """Whether the scope's range contains a block."""
        return self.blocks is None or self.blocks[0] <= block < self.blocks[1]

    @property
    def label(self) -> str:
        """The scope's tensors as text, such as `blocks 5-9, self_attn` (both ends included)."""
        return scope_label(self.blocks, self.filter)


def scope_label(blocks: tuple[int, int] | None, name_part: str | None) -> str:
    """A range of blocks and a part of tensor names as text; "all" for neither."""
    parts = []
    if blocks is not None:
        first, last = blocks[0], blocks[1] - 1
        parts.append(f"block {first}" if first == last else f"blocks {first}-{last}")
    if name_part is not None:
        parts.append(name_part)
    return ", ".join(parts) or "all"


@lru_cache(maxsize=1 << 14)
def block_of(tensor: str, blocks: int) -> int:
    """The number of the block that a tensor belongs to.

    Args:
        tensor: its name.
        blocks: number of blocks of the model.
    """
    if match := _BLOCK.search(tensor):
        return int(match[1])
    return 0 if _BEFORE.search(tensor) else max(0, blocks - 1)


def count_blocks(tensors: Iterable[str]) -> int:
    """Number of blocks of a model with these tensors; 0 where their names show none."""
    return max((int(match[1]) + 1 for name in tensors if (match := _BLOCK.search(name))), default=0)
