"""How important each weight is to the training pairs: stored once per pool, because it depends on no parameter.

`core.search.importance` computes the scores from gradients. They are stored in two bytes a weight, where the pool's
weights are stored: `ElectionRanks` for LED-Merging, which needs only the order of the scores, and `FisherDiagonal` for
AlignMerge.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from core.errors import MergeError
from core.merging.recipes import Recipe
from core.merging.rivals.similarity import Layer
from core.merging.storage import Storage

MergeLayer = Callable[[str, Tensor, Mapping[str, Tensor]], Tensor]
"""Merges a layer: its name, the base's values and the float32 differences of the models that differ there."""
_PIECE = 1 << 24
_VALUES = 1 << 15
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
        ranks, before = ranks_of(scores), self._stored.get((model, key))
        self._keep(model, key, ranks if before is None else torch.maximum(ranks, before.to(ranks.device)))

    def elected(self, model: str, key: str, ratio: float) -> Tensor | None:
        """Which weights are among the first `ratio` of a tensor in both orders; None where no score is stored."""
        ranks = self._fetch(model, key)
        if ranks is None:
            return None
        count = int(ratio * ranks.numel())
        return ranks < count // step_of(ranks.numel())


class Spectrum(NamedTuple):
    """The entries of a pool's changing tensors by their value in the Fisher diagonal.

    Attributes:
        counts: (2^15,) number of entries with each value, in the order of the values.
        energy: (2^15,) sum over these entries of G d^2, float64; d is the mean difference of the experts.
    """

    counts: Tensor
    energy: Tensor


class FisherDiagonal(Importance):
    """The diagonal G of the aligned model's empirical Fisher matrix on the safety pairs, in bfloat16.

    A value of bfloat16 that is not negative is one of 2^15, whose bits have the order of the values. So counts by value
    give the exact threshold of any share of the entries, and sums by value all that AlignMerge's solution needs.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._spectra: dict[tuple[str, ...], Spectrum] = {}

    def note(self, model: str, key: str, scores: Tensor) -> None:
        """Take over the mean squared gradients of the aligned model's tensor."""
        require_finite(scores)
        self._keep(model, key, scores.to(torch.bfloat16))

    def values(self, model: str, key: str) -> Tensor | None:
        """The diagonal at a tensor, on the live model's device; None where there is none (buffers)."""
        return self._fetch(model, key)

    def spectrum(
        self, model: str, experts: tuple[str, ...], tensors: Collection[str], layer: Callable[[str], Layer]
    ) -> Spectrum:
        """Counts and energies of all entries; computed once for a set of experts.

        Args:
            model: the aligned model.
            experts: whose mean difference from it counts.
            tensors: names of the tensors in which they differ.
            layer: fetches a tensor's values.
        """
        if experts not in self._spectra:
            counts = torch.zeros(_VALUES, dtype=torch.int64)
            energy = torch.zeros(_VALUES, dtype=torch.float64)
            for key in sorted(tensors):
                base, deltas = layer(key)
                stored = self.values(model, key)
                fisher = torch.zeros(base.shape, dtype=torch.bfloat16, device=base.device) if stored is None else stored
                flat, mean = fisher.reshape(-1), mean_difference(base, deltas, experts).reshape(-1)
                for start in range(0, flat.numel(), _PIECE):
                    piece = flat[start : start + _PIECE].cpu()  # on a GPU the order of such sums is not fixed
                    places = piece.view(torch.int16).long()
                    added = piece.double() * mean[start : start + _PIECE].cpu().double().square()
                    counts += torch.bincount(places, minlength=_VALUES)
                    energy += torch.bincount(places, added, minlength=_VALUES)
            self._spectra[experts] = Spectrum(counts, energy)
        return self._spectra[experts]


def mean_difference(base: Tensor, deltas: Mapping[str, Tensor], experts: Sequence[str]) -> Tensor:
    """The mean of the experts' differences from the base, float32; a missing expert has the base's tensor."""
    total = torch.zeros(base.shape, dtype=torch.float32, device=base.device)
    for name in experts:
        if name in deltas:
            total += deltas[name]
    return total.div_(len(experts))


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
    require_finite(scores)
    flat = scores.reshape(-1)
    ascending, step = flat.sort().values, step_of(flat.numel())
    ranks = torch.empty(flat.shape, dtype=torch.int16, device=flat.device)
    for start in range(0, flat.numel(), _PIECE):
        piece = flat[start : start + _PIECE]
        larger = flat.numel() - torch.searchsorted(ascending, piece, right=True)
        ranks[start : start + _PIECE] = torch.where(piece > 0, larger // step, _NEVER).to(torch.int16)
    return ranks.view(scores.shape)


def require_finite(scores: Tensor) -> None:
    """Raise `MergeError` if a score is infinite or not a number."""
    if not bool(torch.isfinite(scores).all()):
        message = "An importance score is not finite."
        raise MergeError(message, "Set pool.dtype to float32, or choose another method.", code="importance-not-finite")


def missing_importance(recipe: Recipe) -> MergeError:
    """The error of a recipe whose importance scores have not been computed."""
    return MergeError(
        f"{recipe.info.title} needs importance scores of the weights, which this pool has not computed.",
        "They come from the run's training pairs: save the candidate with `python -m core export`, or resume the run.",
        code="no-importance-scores",
    )
