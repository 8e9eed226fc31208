"""How important each weight is to the training pairs: stored once per pool, because it depends on no parameter.

`core.search.importance` computes the scores from gradients. They are stored in two bytes a weight, where the pool's
weights are stored: `ElectionRanks` for LED-Merging, which needs only the order of the scores.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from core.errors import MergeError
from core.merging.recipes import Recipe
from core.merging.storage import Storage

MergeLayer = Callable[[str, Tensor, Mapping[str, Tensor]], Tensor]
"""Merges a layer: its name, the base's values and the float32 differences of the models that differ there."""
_PIECE = 1 << 24
_NEVER = torch.iinfo(torch.int16).max


class Importance(ABC):
    """What a method knows about each weight of a pool, besides the weights.

    Args:
        storage: where it is stored between merges.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._stored: dict[tuple[str, str], Tensor] = {}

    @abstractmethod
    def note(self, model: str, key: str, scores: Tensor) -> None:
        """Take over the scores of a model's tensor, not negative, in float32."""

    @property
    def nbytes(self) -> int:
        """Bytes stored between merges."""
        return sum(tensor.nbytes for tensor in self._stored.values())

    def sha256(self) -> str:
        """Hash of everything stored: the same hash means that a recipe gives the same weights."""
        digest = hashlib.sha256()
        for (model, key), tensor in sorted(self._stored.items()):
            digest.update(f"{model}\0{key}\0".encode())
            flat = tensor.reshape(-1).view(torch.int16)
            for start in range(0, flat.numel(), _PIECE):
                digest.update(flat[start : start + _PIECE].cpu().numpy().tobytes())
        return digest.hexdigest()

    def _keep(self, model: str, key: str, values: Tensor) -> None:
        self._stored[model, key] = self._storage.keep(values)

    def _fetch(self, model: str, key: str) -> Tensor | None:
        """What is stored of a model's tensor, on the live model's device; None where there is nothing."""
        stored = self._stored.get((model, key))
        return None if stored is None else self._storage.fetch(stored)


class ElectionRanks(Importance):
    """For each weight and model, its rank in the scores of both the base and the model, on the model's pairs.

    The rank of a weight is the number of larger scores in its tensor, from 0. A weight is among the first k of both
    orders if its worse rank is below k, so that only the worse one is stored. Ranks of large tensors are divided by a
    step, which rounds k down by at most 1/32,767 of the tensor. A score of 0 has no rank: such a weight is never
    elected.
    """

    def note(self, model: str, key: str, scores: Tensor) -> None:
        """Take over the scores of one of the two models; the worse of a weight's ranks is kept."""
        ranks = ranks_of(scores)
        before = self._fetch(model, key)
        self._keep(model, key, ranks if before is None else torch.maximum(ranks, before))

    def elected(self, model: str, key: str, ratio: float) -> Tensor | None:
        """Which weights are among the first `ratio` of a tensor in both orders; None where no score is stored."""
        ranks = self._fetch(model, key)
        if ranks is None:
            return None
        count = int(ratio * ranks.numel())
        return ranks < count // step_of(ranks.numel())


def step_of(entries: int) -> int:
    """What ranks in a tensor of so many entries are divided by, to fit into 15 bits."""
    return -(-entries // _NEVER)


def ranks_of(scores: Tensor) -> Tensor:
    """The rank of each entry, divided by the tensor's step, int16: how many entries have a larger score.

    Args:
        scores: of any shape, not negative; entries of 0 get the largest int16.

    Raises:
        MergeError: a score is not finite.
    """
    if not bool(torch.isfinite(scores).all()):
        message = "An importance score is not finite."
        raise MergeError(message, "Set pool.dtype to float32, or choose another method.", code="importance-not-finite")
    flat = scores.reshape(-1)
    ascending, step = flat.sort().values, step_of(flat.numel())
    ranks = torch.empty(flat.shape, dtype=torch.int16, device=flat.device)
    for start in range(0, flat.numel(), _PIECE):
        piece = flat[start : start + _PIECE]
        larger = flat.numel() - torch.searchsorted(ascending, piece, right=True)
        ranks[start : start + _PIECE] = torch.where(piece > 0, larger // step, _NEVER).to(torch.int16)
    return ranks.view(scores.shape)


def missing_importance(recipe: Recipe) -> MergeError:
    """The error of a recipe whose importance scores have not been computed."""
    return MergeError(
        f"{recipe.info.title} needs importance scores of the weights, which this pool has not computed.",
        "They come from the run's training pairs: save the candidate with `python -m core export`, or resume the run.",
        code="no-importance-scores",
    )
