"""DARE's masks: entries of a task vector dropped at random, the same ones whenever a recipe is merged again.

Every entry has a number u in [0, 1) and is kept where u < density. The numbers depend on (seed, expert, tensor) alone,
so a larger density keeps every entry that a smaller one keeps, and a search's objective changes gradually. They are
computed again for every candidate, one piece at a time, and not stored. `RandomDrop` draws the masks of version 1 one
after another on the CPU; `core.merging.counter_masks` computes those of version 2.
"""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor

from core.merging.counter_masks import CounterDrop

_LEVELS = 1 << 16
_PER_DRAW = 4


class RandomDrop:
    """The mask of one tensor of one expert's task vector, applied to its consecutive pieces.

    torch's generator on the processor draws the numbers, whatever the tensor's device, so that a recipe gives the same
    weights everywhere. Each number has 16 bits, a quarter of a 64-bit draw.

    Args:
        seed: the recipe's.
        expert: reference of the expert, as in the recipe.
        tensor: name of the tensor.
        density: share of entries kept, in (0, 1]; rounded to a multiple of 1/65536, at least 1/65536.
    """

    def __init__(self, seed: int, expert: str, tensor: str, density: float) -> None:
        digest = sha256(f"{seed}\0{expert}\0{tensor}".encode()).digest()
        self._generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        self._last_kept = max(1, round(density * _LEVELS)) - 1 - _LEVELS // 2

    def __call__(self, values: Tensor) -> Tensor:
        """The next piece with the dropped entries zeroed, not rescaled.

        Args:
            values: 1-D float32; the size is a multiple of four, except for the tensor's last piece.
        """
        size = values.numel()
        draws = torch.empty(-(-size // _PER_DRAW), dtype=torch.int64)
        draws.random_(-(2**63), None, generator=self._generator)
        numbers = draws.view(torch.int16)[:size].to(values.device)
        # A mask of floats: multiplying by it is several times faster than by booleans.
        kept = torch.empty(size, dtype=values.dtype, device=values.device)
        torch.le(numbers, self._last_kept, out=kept)
        return values * kept


def random_drop(version: int, seed: int, expert: str, tensor: str, density: float) -> RandomDrop | CounterDrop:
    """The mask of one tensor of one expert's task vector, for a version of masks.

    Args:
        version: `Recipe.mask_version`.
        seed: the recipe's.
        expert: reference of the expert.
        tensor: name of the tensor.
        density: share of entries kept, in (0, 1].
    """
    drop = RandomDrop if version == 1 else CounterDrop
    return drop(seed, expert, tensor, density)
