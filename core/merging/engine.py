"""The fast path: a candidate is written straight into the live model's parameters, without disk or reload.

Work that does not depend on the recipe (task vectors, their trim counts, which tensors differ at all) is done once.
Each candidate is then one pass over the tensors that differ, in pieces that fit the processor's cache. Arithmetic is
float32 whatever the live model's dtype; mergekit does the same with `dtype: float32, out_dtype: bfloat16`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.errors import MergeError
from core.merging.recipes import Recipe
from core.merging.trimming import Trim, TrimIndex, keep_mask

State = Mapping[str, Tensor]
_PIECE = 1 << 19
_TRIMS_KEPT = 1 << 16


@dataclass(frozen=True)
class TaskVector:
    """theta_expert - theta_base (paper Eq. 1) for the tensors in which the two differ."""

    deltas: dict[str, Tensor]
    indices: dict[str, TrimIndex]


class MergePool:
    """The pool's weights, resident, and the live model that candidates are written into.

    Args:
        live: the model to write into; its dtype is the dtype that is scored and saved.
        base_name: reference of the base as recipes name it.
        base: its tensors (float32 or bfloat16, on the live model's device).

    Experts are added one at a time, so that only one full copy beside the base is in memory while loading.
    """

    def __init__(self, live: Any, base_name: str, base: State) -> None:
        self.live = live
        self.base_name = base_name
        self._base = dict(base)
        self._parameters = _named_tensors(live, self._base)
        self._vectors: dict[str, TaskVector] = {}
        self._trims: dict[tuple[str, str, float], Trim] = {}

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(self._vectors)

    @property
    def changing(self) -> frozenset[str]:
        """Names of the tensors in which any expert differs from the base: no recipe changes another."""
        return frozenset(key for vector in self._vectors.values() for key in vector.deltas)

    def add_expert(self, name: str, state: State) -> None:
        """Take up an expert's tensors as a task vector; `state` may be dropped afterwards.

        Raises:
            MergeError: tensors are missing, of another shape, or not finite.
        """
        deltas: dict[str, Tensor] = {}
        for key, base in self._base.items():
            other = state.get(key)
            if other is None or other.shape != base.shape:
                found = "no such tensor" if other is None else f"shape {tuple(other.shape)}"
                raise MergeError(
                    f"{name} does not fit {self.base_name}: {key} has {found}, expected {tuple(base.shape)}.",
                    "Only models of the same architecture and size can be merged.",
                )
            delta = other.to(torch.float32) - base.to(torch.float32)
            if not bool(torch.isfinite(delta).all()):
                raise MergeError(f"{key} of {name} holds values that are not finite.", "The checkpoint is damaged.")
            if bool(delta.any()):
                deltas[key] = delta
        self._vectors[name] = TaskVector(deltas, {})

    def write_parent(self, name: str) -> None:
        """Make the live model the base or one of the experts."""
        if name == self.base_name:
            self._write({}, {})
        else:
            self._write({name: 1.0}, {})

    def apply(self, recipe: Recipe) -> None:
        """Merge `recipe` into the live model.

        Raises:
            MergeError: a model of the recipe is not in the pool.
        """
        missing = [name for name in recipe.experts if name not in self._vectors]
        if missing or recipe.base != self.base_name:
            raise MergeError(f"The recipe names models outside the pool: {missing or recipe.base}.")
        weights = dict(zip(recipe.experts, task_weights(recipe), strict=True))
        densities = dict(zip(recipe.experts, recipe.densities or (), strict=False))
        self._write(weights, densities, elect_signs=recipe.method == "ties")

    def _write(self, weights: Mapping[str, float], densities: Mapping[str, float], elect_signs: bool = False) -> None:
        used = {name: weight for name, weight in weights.items() if weight != 0.0 or elect_signs}
        with torch.no_grad():
            for key, base in self._base.items():
                names = [name for name in used if key in self._vectors[name].deltas]
                if not names:
                    self._parameters[key].copy_(base)
                    continue
                trims = [self._trim(name, key, densities.get(name, 1.0)) for name in names]
                deltas = [self._vectors[name].deltas[key] for name in names]
                _merge_tensor(self._parameters[key], base, deltas, [used[n] for n in names], trims, elect_signs)

    def _trim(self, name: str, key: str, density: float) -> Trim:
        if density >= 1:
            return Trim(-1.0, 0)
        cached = self._trims.get((name, key, density))
        if cached is None:
            if len(self._trims) >= _TRIMS_KEPT:  # a long search comes with new densities for every candidate
                self._trims.clear()
            vector = self._vectors[name]
            index = vector.indices.get(key)
            if index is None:
                index = vector.indices[key] = TrimIndex(vector.deltas[key])
            cached = self._trims[name, key, density] = index.trim(density)
        return cached


def task_weights(recipe: Recipe) -> tuple[float, ...]:
    """Weights of the task vectors; a linear merge's normalised weights are those of its experts (Eq. 2)."""
    if recipe.method != "linear":
        return recipe.weights
    total = sum(recipe.weights)
    return tuple(weight / total for weight in recipe.weights[1:])


def _named_tensors(live: Any, base: State) -> dict[str, Tensor]:
    state = live.state_dict()
    missing = [name for name in base if name not in state]
    if missing:
        raise MergeError(f"The live model lacks {len(missing)} tensors of the base, {missing[0]} first.")
    return {name: state[name] for name in base}


def _merge_tensor(
    target: Tensor,
    base: Tensor,
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    trims: Sequence[Trim],
    elect_signs: bool,
) -> None:
    """Write base + sum of weighted, trimmed and (for TIES) sign-elected task vectors into `target`."""
    out, flat_base = target.view(-1), base.reshape(-1)  # a view or an error: a copy would leave the model as it was
    flat = [delta.reshape(-1) for delta in deltas]
    ties_used = [0] * len(deltas)
    for start in range(0, out.numel(), _PIECE):
        piece = slice(start, start + _PIECE)
        weighted = []
        for i, delta in enumerate(flat):
            values = delta[piece]
            if trims[i].threshold >= 0:
                mask, ties_used[i] = keep_mask(values.abs(), trims[i], ties_used[i])
                values = values * mask
            weighted.append(values * weights[i])
        merged = _combine(weighted, elect_signs).add_(flat_base[piece].float())
        out[piece] = merged.to(out.dtype)


def _combine(weighted: Sequence[Tensor], elect_signs: bool) -> Tensor:
    """Sum of weighted task vectors; with sign election only the entries that agree with the sum's sign count."""
    total = weighted[0].clone() if len(weighted) > 1 else weighted[0]
    for values in weighted[1:]:
        total += values
    if not elect_signs or len(weighted) == 1:
        return total
    majority = torch.where(total >= 0, 1.0, -1.0)
    agreed = torch.zeros_like(total)
    for values in weighted:
        agreed += values * (values.sign() == majority)
    return agreed
