"""Where the pool's weights are stored between merges, and in which number format.

Resident: base and task vectors in float32 on the live model's device. Streamed: the same in host memory (pinned where
the device is a GPU), copied to the device tensor by tensor during a merge. Compact: each tensor in the narrowest format
that loses nothing, with task vectors computed in float32 piece by piece during a merge. Where experts are stored on the
host, the base may stay on the device. A merge gets the same float32 values from each, so its weights are the same to
the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_NARROW = (torch.bfloat16, torch.float16)


class Delta(NamedTuple):
    """One tensor of a task vector, theta_expert - theta_base (paper Eq. 1), on the live model's device.

    Attributes:
        values: (n,) the float32 difference; with `base`, the expert's own values in a narrower format.
        base: (n,) the base's values, which must still be subtracted; None where `values` is the difference.
    """

    values: Tensor
    base: Tensor | None = None

    def piece(self, place: slice) -> Tensor:
        """The differences at `place`, float32."""
        if self.base is None:
            return self.values[place]
        return self.values[place].float() - self.base[place].float()

    @property
    def whole(self) -> Tensor:
        """(n,) all differences at once, float32."""
        return self.piece(slice(None))

    def pieces(self, size: int) -> Iterator[Tensor]:
        """All differences in order, `size` at a time."""
        for start in range(0, self.values.numel(), size):
            yield self.piece(slice(start, start + size))


class Stored(NamedTuple):
    """One stored tensor of a task vector: the float32 difference, or the expert's `own` values."""

    values: Tensor
    own: bool


@dataclass(frozen=True)
class Storage:
    """Stores the pool's weights between merges.

    Attributes:
        device: of the live model.
        on_host: weights are stored in host memory and copied to the device for each merge.
        compact: weights are stored in the narrowest format that loses nothing.
        base_on_device: the base is stored on the device although experts are stored on the host.
    """

    device: torch.device
    on_host: bool = False
    compact: bool = False
    base_on_device: bool = False

    @property
    def of_base(self) -> Storage:
        """How the base is stored."""
        return Storage(self.device, self.on_host and not self.base_on_device, self.compact)

    def keep(self, tensor: Tensor) -> Tensor:
        """`tensor` as it is stored."""
        kept = narrowest(tensor) if self.compact else tensor
        if not self.on_host:
            return kept.to(self.device)
        return kept.cpu().pin_memory() if self.device.type == "cuda" else kept.cpu()

    def keep_expert(self, tensor: Tensor, base: Tensor) -> Stored:
        """An expert's tensor as it is stored.

        Where no narrow format holds the tensor (an adapter merged in float32), the difference is stored in float32,
        which takes the same memory.

        Args:
            tensor: the expert's.
            base: the base's tensor as it is stored.
        """
        own = narrowest(tensor) if self.compact else tensor
        if self.compact and own.dtype != torch.float32:
            return Stored(self.keep(own), own=True)
        on_device = tensor.to(self.device, torch.float32)
        delta = on_device - self.of_base.fetch(base).to(torch.float32)
        return Stored(Storage(self.device, self.on_host).keep(delta), own=False)

    def fetch(self, tensor: Tensor) -> Tensor:
        """A stored tensor on the live model's device; a temporary copy where it is stored on the host."""
        return tensor.to(self.device, non_blocking=True, copy=True) if self.on_host else tensor

    def fetch_delta(self, stored: Stored, base: Tensor) -> Delta:
        """A task vector's tensor on the device; `base` is the base's tensor there."""
        values = self.fetch(stored.values).reshape(-1)
        return Delta(values, base.reshape(-1) if stored.own else None)


def narrowest(tensor: Tensor) -> Tensor:
    """`tensor` in bfloat16 or float16 when that changes no value, else unchanged."""
    if tensor.dtype != torch.float32:
        return tensor
    for dtype in _NARROW:
        narrow = tensor.to(dtype)
        if torch.equal(narrow.float(), tensor):
            return narrow
    return tensor
