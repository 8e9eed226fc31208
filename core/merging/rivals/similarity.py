"""How similar each layer's update is to the alignment: computed once per pool, because it depends on no parameter.

A layer is one weight tensor. `projection_cosine` is that of Safe LoRA and SafeMERGE, `cosine` that of Layer-Aware Task
Arithmetic. Sums are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

Layer = tuple[Tensor, Mapping[str, Tensor]]
"""A tensor of the ancestor, and the task vectors of the models that differ from it there, of its shape, float32."""
Similarity = Mapping[str, float]
"""A layer's similarity by tensor; layers for which it is undefined are missing."""


def project(update: Tensor, alignment: Tensor) -> Tensor:
    """C dW with C = V V^T / ||V||_F: the update projected on the alignment subspace (Safe LoRA, arXiv 2405.16833).

    Args:
        update: (out, in) dW, theta_expert - theta_aligned.
        alignment: (out, in) V, theta_aligned - theta_ancestor; not zero everywhere.
    """
    rows, columns = alignment.shape
    wide = rows <= columns  # the smaller of V V^T and V^T dW is held in memory
    projected: Tensor = alignment @ alignment.T @ update if wide else alignment @ (alignment.T @ update)
    return projected.div_(alignment.double().norm())


def projection_cosine(update: Tensor, alignment: Tensor) -> float | None:
    """Cosine between dW and C dW, in [0, 1]; None for a vector, and where either model is unchanged.

    Args:
        update: dW.
        alignment: V, of the same shape.
    """
    if update.dim() != 2 or not bool(alignment.any()) or not bool(update.any()):
        return None
    return cosine(update, project(update, alignment))


def cosine(one: Tensor, other: Tensor) -> float:
    """Cosine between two tensors, flattened; 0 where one of them is zero."""
    first, second = one.reshape(-1).double(), other.reshape(-1).double()
    lengths = float(first.norm() * second.norm())
    return float(first @ second) / lengths if lengths > 0 else 0.0


class Similarities:
    """The similarities of a pool's layers, each computed when a method first needs it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Similarity] = {}

    def of(
        self, kind: str, aligned: str, experts: Iterable[str], tensors: Iterable[str], layer: Callable[[str], Layer]
    ) -> dict[str, Similarity]:
        """The similarity of each expert's layers, by expert.

        Args:
            kind: `similarity` of the row: `projection` (`projection_cosine` of theta_expert - theta_aligned) or
                `direction` (`cosine` of theta_expert - theta_ancestor), each with theta_aligned - theta_ancestor.
            aligned: the aligned model.
            experts: the models whose updates are compared with it.
            tensors: names of the tensors in which models differ.
            layer: fetches a tensor's values.
        """
        missing = [name for name in experts if (kind, aligned, name) not in self._known]
        if missing:
            found: dict[str, dict[str, float]] = {name: {} for name in missing}
            for key in sorted(tensors):
                base, deltas = layer(key)
                alignment = deltas.get(aligned, torch.zeros_like(base, dtype=torch.float32))
                for name in missing:
                    own = deltas.get(name, torch.zeros_like(alignment))
                    value = _similarity(kind, own, alignment)
                    if value is not None:
                        found[name][key] = value
            self._known |= {(kind, aligned, name): table for name, table in found.items()}
        return {name: self._known[kind, aligned, name] for name in experts}


def _similarity(kind: str, task_vector: Tensor, alignment: Tensor) -> float | None:
    """A layer's similarity; None where it is undefined, or the model's layer is the ancestor's."""
    if kind == "projection":
        return projection_cosine(task_vector - alignment, alignment)
    return cosine(task_vector, alignment) if bool(task_vector.any()) else None
