"""The fast path: a candidate is written straight into the live model's parameters, without disk or reload.

Work that does not depend on the recipe (task vectors, their trim counts, which tensors differ at all) is done once.
Each candidate is then one pass over the tensors that differ, in pieces that fit the processor's cache. Arithmetic is
float32 whatever the live model's dtype; mergekit does the same with `dtype: float32, out_dtype: bfloat16`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.errors import MergeError
from core.merging.dare import RandomDrop
from core.merging.recipes import Recipe, by_tensor, effective_weights
from core.merging.slerp import Factors, angle_between, factors
from core.merging.trimming import MagnitudeTrim, Trim, TrimIndex

State = Mapping[str, Tensor]
Keep = Callable[[Tensor], Tensor]
"""Takes a task vector's next piece and gives it back with the dropped entries zeroed."""
_PIECE = 1 << 19  # a multiple of four, as DARE's masks ask for
_TRIMS_KEPT = 1 << 16
_UNLIKE = "Only models of the same architecture and size can be merged."


@dataclass(frozen=True)
class TaskVector:
    """theta_expert - theta_base (paper Eq. 1) for the tensors in which the two differ, and what is known of them.

    Attributes:
        deltas: float32, by tensor.
        indices: counts of magnitudes, made when TIES first trims a tensor.
        angles: between base and expert, found when SLERP first merges a tensor.
    """

    deltas: dict[str, Tensor]
    indices: dict[str, TrimIndex] = field(default_factory=dict)
    angles: dict[str, float | None] = field(default_factory=dict)


class MergePool:
    """The pool's weights, resident, and the live model that candidates are written into.

    Args:
        live: the model to write into; its dtype is the dtype that is scored and saved.
        base_name: reference of the base as recipes name it.
        base: its tensors (float32 or bfloat16, on the live model's device).

    Experts are added one at a time, so that only one full copy beside the base is in memory while loading.

    Raises:
        MergeError: the live model lacks tensors of the base, or the base's are not finite.
    """

    def __init__(self, live: Any, base_name: str, base: State) -> None:
        self.live = live
        self.base_name = base_name
        self._base = dict(base)
        self._parameters = _named_tensors(live, self._base)
        for key, tensor in self._base.items():
            _require_finite(tensor, key, base_name)
        self._vectors: dict[str, TaskVector] = {}
        self._trims: dict[tuple[str, str, float], Trim] = {}

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(self._vectors)

    @property
    def changing(self) -> frozenset[str]:
        """Names of the tensors in which any expert differs from the base: no recipe changes another."""
        return frozenset(key for vector in self._vectors.values() for key in vector.deltas)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the base's tensors."""
        return tuple(self._base)

    def changed_by(self, name: str) -> frozenset[str]:
        """Names of the tensors in which an expert differs from the base."""
        return frozenset(self._vectors[name].deltas)

    def add_expert(self, name: str, state: State) -> None:
        """Take up an expert's tensors as a task vector; `state` may be dropped afterwards.

        Raises:
            MergeError: tensors are missing, too many, of another shape, or not finite.
        """
        if extra := state.keys() - self._base.keys():
            raise MergeError(
                f"{name} does not fit {self.base_name}: it has {len(extra)} more tensors, {min(extra)} first.", _UNLIKE
            )
        deltas: dict[str, Tensor] = {}
        for key, base in self._base.items():
            other = state.get(key)
            if other is None or other.shape != base.shape:
                found = "no such tensor" if other is None else f"shape {tuple(other.shape)}"
                raise MergeError(
                    f"{name} does not fit {self.base_name}: {key} has {found}, expected {tuple(base.shape)}.",
                    _UNLIKE,
                )
            delta = other.to(torch.float32) - base.to(torch.float32)
            _require_finite(delta, key, name)
            if bool(delta.any()):
                deltas[key] = delta
        self._vectors[name] = TaskVector(deltas)

    def write_parent(self, name: str) -> None:
        """Make the live model the base or one of the experts."""
        if name == self.base_name:
            self._write(lambda _key: {}, _keep_all)
        else:
            self._write(lambda _key: {name: 1.0}, _keep_all)

    def apply(self, recipe: Recipe) -> None:
        """Merge `recipe` into the live model.

        Raises:
            MergeError: a model of the recipe is not in the pool.
        """
        missing = [name for name in recipe.experts if name not in self._vectors]
        if missing or recipe.base != self.base_name:
            raise MergeError(f"The recipe names models outside the pool: {missing or recipe.base}.")
        local = by_tensor(recipe, self._base)
        if recipe.method == "slerp":
            self._write_between(recipe.experts[0], {key: part.weights[0] for key, part in local.items()})
            return
        weights = {id(part): dict(zip(part.experts, task_weights(part), strict=True)) for part in local.values()}
        signs = recipe.method in ("ties", "dare_ties")
        keep = partial(self._keep, local)
        self._write(lambda key: weights[id(local[key])], keep, elect_signs=signs, normalize=recipe.normalize and signs)

    def _keep(self, local: Mapping[str, Recipe], name: str, key: str) -> Keep | None:
        """What of an expert's tensor the recipe keeps; None for all of it."""
        recipe = local[key]
        density = recipe.densities[recipe.experts.index(name)] if recipe.densities else 1.0
        if density >= 1:
            return None
        if recipe.drops_at_random:
            return RandomDrop(recipe.seed, name, key, density)
        return MagnitudeTrim(self._trim(name, key, density))

    def _write(
        self,
        weights: Callable[[str], Mapping[str, float]],
        keep: Callable[[str, str], Keep | None],
        elect_signs: bool = False,
        normalize: bool = False,
    ) -> None:
        """Write the sum of weighted task vectors; `weights` are those of a tensor, by expert."""
        with torch.no_grad():
            for key, base in self._base.items():
                used = {name: w for name, w in weights(key).items() if key in self._vectors[name].deltas}
                terms = [
                    _Term(self._vectors[name].deltas[key], weight, keep(name, key))
                    for name, weight in used.items()
                    if weight != 0.0 or elect_signs
                ]
                if not terms:
                    self._parameters[key].copy_(base)
                    continue
                _merge_tensor(self._parameters[key], base, terms, elect_signs, normalize)

    def _write_between(self, name: str, t: Mapping[str, float]) -> None:
        """SLERP at each tensor's t between the base (0) and an expert (1)."""
        vector = self._vectors[name]
        with torch.no_grad():
            for key, base in self._base.items():
                delta = vector.deltas.get(key)
                if delta is None:
                    self._parameters[key].copy_(base)
                    continue
                if key not in vector.angles:
                    vector.angles[key] = angle_between(base, delta)
                _slerp_tensor(self._parameters[key], base, delta, factors(vector.angles[key], t[key]))

    def _trim(self, name: str, key: str, density: float) -> Trim:
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
        return effective_weights(recipe)
    total = sum(recipe.weights)
    return tuple(weight / total for weight in recipe.weights[1:])


def _named_tensors(live: Any, base: State) -> dict[str, Tensor]:
    state = live.state_dict()
    missing = [name for name in base if name not in state]
    if missing:
        raise MergeError(f"The live model lacks {len(missing)} tensors of the base, {missing[0]} first.")
    return {name: state[name] for name in base}


class _Term(NamedTuple):
    """One task vector's tensor in a sum; `keep` is None where nothing is dropped."""

    delta: Tensor
    weight: float
    keep: Keep | None


def _keep_all(_name: str, _key: str) -> None:
    """Nothing is dropped."""


def _require_finite(tensor: Tensor, key: str, name: str) -> None:
    if not bool(torch.isfinite(tensor).all()):
        raise MergeError(f"{key} of {name} holds values that are not finite.", "The checkpoint is damaged.")


def _merge_tensor(target: Tensor, base: Tensor, terms: Sequence[_Term], elect_signs: bool, normalize: bool) -> None:
    """Write base + sum of weighted, trimmed or dropped and (for TIES) sign-elected task vectors into `target`."""
    out, flat_base = target.view(-1), base.reshape(-1)  # a view or an error: a copy would leave the model as it was
    flat = [term._replace(delta=term.delta.reshape(-1)) for term in terms]
    for start in range(0, out.numel(), _PIECE):
        piece = slice(start, start + _PIECE)
        weighted = []
        for delta, weight, keep in flat:
            values = delta[piece] if keep is None else keep(delta[piece])
            weighted.append(values * weight)
        merged = _combine(weighted, elect_signs)
        if normalize:
            merged /= _agreeing_weights(weighted, [term.weight for term in terms])
        merged.add_(flat_base[piece].float())
        out[piece] = merged.to(out.dtype)


def _combine(weighted: Sequence[Tensor], elect_signs: bool) -> Tensor:
    """Sum of weighted task vectors; with sign election only the entries that agree with the sum's sign count."""
    total = weighted[0].clone() if len(weighted) > 1 else weighted[0]
    for values in weighted[1:]:
        total += values
    if not elect_signs or len(weighted) == 1:
        return total
    majority = torch.ge(total, 0, out=torch.empty_like(total)).mul_(2).sub_(1)
    agreed = torch.zeros_like(total)
    for values in weighted:
        agreed += (values * majority).clamp_(min=0)  # magnitudes of those that agree
    return agreed.mul_(majority)


def _agreeing_weights(weighted: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """For each entry the sum of the weights whose task vectors agree with the elected sign; 1 where it is zero."""
    total = weighted[0].clone()
    for values in weighted[1:]:
        total += values
    majority = torch.ge(total, 0).to(total.dtype).mul_(2).sub_(1)
    divisor = torch.zeros_like(total)
    for values, weight in zip(weighted, weights, strict=True):
        divisor += (values.sign() == majority) * weight
    return torch.where(divisor == 0, 1.0, divisor)


def _slerp_tensor(target: Tensor, base: Tensor, delta: Tensor, parts: Factors) -> None:
    """Write the weighted sum of base and expert (base + delta) into `target`."""
    out, flat_base, flat_delta = target.view(-1), base.reshape(-1), delta.reshape(-1)
    for start in range(0, out.numel(), _PIECE):
        piece = slice(start, start + _PIECE)
        near = flat_base[piece].float()
        merged = near * parts.base + (near + flat_delta[piece]) * parts.expert
        out[piece] = merged.to(out.dtype)
