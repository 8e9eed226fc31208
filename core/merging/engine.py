"""The fast path: a candidate is written straight into the live model's parameters, without disk or reload.

Work that does not depend on the recipe (task vectors, their trim counts, which tensors differ at all) is done once.
Each candidate is then one pass over the tensors that differ, in pieces that fit the processor's cache. Arithmetic is
float32 whatever the live model's dtype; mergekit does the same with `dtype: float32, out_dtype: bfloat16`. Where the
weights wait in between, and in which format, is `core.merging.storage`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from core.errors import MergeError
from core.merging.dare import RandomDrop
from core.merging.recipes import Recipe, effective_weights
from core.merging.registered import merge_tensor
from core.merging.slerp import Factors, angle_between, factors
from core.merging.storage import Delta, Storage, Stored
from core.merging.trimming import MagnitudeTrim, Trim, TrimIndex

State = Mapping[str, Tensor]
Keep = Callable[[Tensor], Tensor]
"""Takes a task vector's next piece and gives it back with the dropped entries zeroed."""
_PIECE = 1 << 19  # a multiple of four, as DARE's masks ask for
_GPU_PIECE = 1 << 24  # a GPU wants few large steps
_TRIMS_KEPT = 1 << 16
_NO_NORM = 1e-7  # mergekit's: below, nothing is rescaled
_NO_SUM = 1e-8  # mergekit's: weights that add up to less are not normalised
_UNLIKE = "Only models of the same architecture and size can be merged."


@dataclass(frozen=True)
class TaskVector:
    """theta_expert - theta_base (paper Eq. 1) for the tensors in which the two differ, and what is known of them.

    Attributes:
        deltas: as they wait between merges, by tensor.
        indices: counts of magnitudes, made when TIES first trims a tensor.
        angles: between base and expert, found when SLERP first merges a tensor.
    """

    deltas: dict[str, Stored]
    indices: dict[str, TrimIndex] = field(default_factory=dict)
    angles: dict[str, float | None] = field(default_factory=dict)


class MergePool:
    """The pool's weights, resident, and the live model that candidates are written into.

    Args:
        live: the model to write into; its dtype is the dtype that is scored and saved.
        base_name: reference of the base as recipes name it.
        base: its tensors (float32 or bfloat16).
        storage: how weights wait between merges; None = beside the live model, as they are.

    Experts are added one at a time, so that only one full copy beside the base is in memory while loading.

    Raises:
        MergeError: the live model lacks tensors of the base, or the base's are not finite.
    """

    def __init__(self, live: Any, base_name: str, base: State, storage: Storage | None = None) -> None:
        self.live = live
        self.base_name = base_name
        self._parameters = _named_tensors(live, base)
        self._storage = storage or Storage(next(iter(self._parameters.values())).device)
        for key, tensor in base.items():
            _require_finite(tensor, key, base_name)
        self._base = {key: self._storage.keep(tensor) for key, tensor in base.items()}
        self._vectors: dict[str, TaskVector] = {}
        self._trims: dict[tuple[str, str, float], Trim] = {}
        self._factors: dict[tuple[str, str, float], float] = {}

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(self._vectors)

    @property
    def changing(self) -> frozenset[str]:
        """Names of the tensors in which any expert differs from the base: no recipe changes another."""
        return frozenset(key for vector in self._vectors.values() for key in vector.deltas)

    @property
    def base_tensors(self) -> State:
        """The base's tensors as they wait: where and in which format is the storage's business."""
        return self._base

    @property
    def unchanged(self) -> tuple[str, ...]:
        """Experts that differ from the base in no tensor."""
        return tuple(name for name, vector in self._vectors.items() if not vector.deltas)

    def add_expert(self, name: str, state: State) -> None:
        """Take up an expert's tensors as a task vector; `state` may be dropped afterwards.

        Raises:
            MergeError: tensors are missing, too many, of another shape, or not finite.
        """
        if extra := state.keys() - self._base.keys():
            raise MergeError(
                f"{name} does not fit {self.base_name}: it has {len(extra)} more tensors, {min(extra)} first.", _UNLIKE
            )
        deltas: dict[str, Stored] = {}
        for key, base in self._base.items():
            other = state.get(key)
            if other is None or other.shape != base.shape:
                found = "no such tensor" if other is None else f"shape {tuple(other.shape)}"
                raise MergeError(
                    f"{name} does not fit {self.base_name}: {key} has {found}, expected {tuple(base.shape)}.",
                    _UNLIKE,
                )
            if not base.is_floating_point():
                _require_equal_buffer(other, base, key, name)
            stored = self._storage.keep_expert(other, base)
            if self._differs(stored, base, key, name):
                deltas[key] = stored
        self._vectors[name] = TaskVector(deltas)

    def _differs(self, stored: Stored, base: Tensor, key: str, name: str) -> bool:
        """Whether any entry of a task vector's tensor is not zero; all must be finite."""
        differs = False
        for values in self._storage.fetch_delta(stored, self._storage.fetch(base)).pieces(
            piece_entries(base.device.type)
        ):
            _require_finite(values, key, name)
            differs = differs or bool(values.any())
        return differs

    @property
    def stored_bytes(self) -> dict[str, int]:
        """Bytes that wait between merges, beside the live model: of the base, each task vector, and what trims them."""
        parts = {self.base_name: sum(tensor.nbytes for tensor in self._base.values())}
        parts |= {name: sum(s.values.nbytes for s in vector.deltas.values()) for name, vector in self._vectors.items()}
        indices = [index for vector in self._vectors.values() for index in vector.indices.values()]
        return parts | {"trim indices": sum(index.nbytes for index in indices)}

    def write_parent(self, name: str) -> None:
        """Make the live model the base or one of the experts."""
        if name == self.base_name:
            self._write({}, _keep_all)
        else:
            self._write({name: 1.0}, _keep_all)

    def apply(self, recipe: Recipe) -> None:
        """Merge `recipe` into the live model.

        Raises:
            MergeError: a model of the recipe is not in the pool.
        """
        missing = [name for name in recipe.experts if name not in self._vectors]
        if missing or recipe.base != self.base_name:
            raise MergeError(f"The recipe names models outside the pool: {missing or recipe.base}.")
        if recipe.by_mergekit:
            self._write_by_mergekit(recipe)
            return
        if recipe.method == "slerp":
            self._write_between(recipe.experts[0], recipe.weights[0])
            return
        weights = dict(zip(recipe.experts, task_weights(recipe), strict=True))
        self._write(weights, partial(self._keep, recipe), sum_rule(recipe))

    def _keep(self, recipe: Recipe, name: str, key: str, delta: Delta) -> Keep | None:
        """What of an expert's tensor the recipe keeps; None for all of it."""
        density = recipe.densities[recipe.experts.index(name)] if recipe.densities else 1.0
        if density >= 1:
            return None
        if recipe.drops_at_random:
            return RandomDrop(recipe.seed, name, key, density)
        trim = self._trim(name, key, delta, density)
        if not recipe.option("rescale", False):
            return MagnitudeTrim(trim)
        factor = self._rescaling(name, key, delta, density)
        keep = MagnitudeTrim(trim)
        return lambda values: keep(values) * factor

    def _rescaling(self, name: str, key: str, delta: Delta, density: float) -> float:
        """What makes a trimmed tensor's L1 norm what it was (mergekit's `rescale`)."""
        known = self._factors.get((name, key, density))
        if known is None:
            if len(self._factors) >= _TRIMS_KEPT:
                self._factors.clear()
            keep, before, after = MagnitudeTrim(self._trim(name, key, delta, density)), 0.0, 0.0
            for values in delta.pieces(piece_entries(delta.values.device.type)):
                before += float(values.abs().sum())
                after += float(keep(values).abs().sum())
            known = 1.0 if before < _NO_NORM or after < _NO_NORM else before / after
            self._factors[name, key, density] = known
        return known

    def _write_by_mergekit(self, recipe: Recipe) -> None:
        with torch.no_grad():
            for key, base in self._base.items():
                names = [name for name in recipe.experts if key in self._vectors[name].deltas]
                if not names:
                    self._parameters[key].copy_(base)
                    continue
                here = self._storage.fetch(base)
                deltas = {
                    name: self._storage.fetch_delta(self._vectors[name].deltas[key], here).whole.view(base.shape)
                    for name in names
                }
                self._parameters[key].copy_(merge_tensor(recipe, key, here, deltas))

    def _write(
        self,
        weights: Mapping[str, float],
        keep: Callable[[str, str, Delta], Keep | None],
        rule: SumRule | None = None,
    ) -> None:
        rule = rule or SumRule()
        used = {name: weight for name, weight in weights.items() if weight != 0.0 or rule.elect_signs}
        with torch.no_grad():
            for key, base in self._base.items():
                names = [name for name in used if key in self._vectors[name].deltas]
                if not names:
                    self._parameters[key].copy_(base)
                    continue
                here = self._storage.fetch(base)
                deltas = [self._storage.fetch_delta(self._vectors[name].deltas[key], here) for name in names]
                terms = [
                    _Term(delta, used[name], keep(name, key, delta)) for name, delta in zip(names, deltas, strict=True)
                ]
                _merge_tensor(self._parameters[key], here, terms, rule)

    def _write_between(self, name: str, t: float) -> None:
        """SLERP at t between the base (0) and an expert (1)."""
        vector = self._vectors[name]
        with torch.no_grad():
            for key, base in self._base.items():
                stored = vector.deltas.get(key)
                if stored is None:
                    self._parameters[key].copy_(base)
                    continue
                here = self._storage.fetch(base)
                delta = self._storage.fetch_delta(stored, here)
                if key not in vector.angles:
                    vector.angles[key] = angle_between(here, delta)
                _slerp_tensor(self._parameters[key], here, delta, factors(vector.angles[key], t))

    def _trim(self, name: str, key: str, delta: Delta, density: float) -> Trim:
        cached = self._trims.get((name, key, density))
        if cached is None:
            if len(self._trims) >= _TRIMS_KEPT:  # a long search comes with new densities for every candidate
                self._trims.clear()
            vector = self._vectors[name]
            index = vector.indices.get(key)
            if index is None:
                index = vector.indices[key] = TrimIndex(delta)
            cached = self._trims[name, key, density] = index.trim(delta, density)
        return cached


def task_weights(recipe: Recipe) -> tuple[float, ...]:
    """Weights of the task vectors; a linear merge's normalised weights are those of its experts (Eq. 2)."""
    if recipe.method != "linear":
        return effective_weights(recipe)
    total = sum(recipe.weights)
    return tuple(weight / total for weight in recipe.weights[1:])


class SumRule(NamedTuple):
    """How weighted task vectors become the one that is added to the base.

    Attributes:
        elect_signs: only entries that agree with the sign of the sum count (TIES).
        normalize: divide by the sum of the weights that count.
        total: that sum where signs are not elected: of all weights.
        factor: mergekit's `lambda`.
    """

    elect_signs: bool = False
    normalize: bool = False
    total: float = 1.0
    factor: float = 1.0


def sum_rule(recipe: Recipe) -> SumRule:
    """The rule of a recipe of task vectors; a linear merge's weights are normalised already."""
    if recipe.method == "linear":
        return SumRule()
    total = float(torch.tensor(recipe.weights, dtype=torch.float32).sum())
    return SumRule(
        elect_signs=recipe.method in ("ties", "dare_ties"),
        normalize=bool(recipe.option("normalize", False)),
        total=1.0 if abs(total) < _NO_SUM else total,
        factor=cast(float, recipe.option("lambda", 1.0)),
    )


def _named_tensors(live: Any, base: State) -> dict[str, Tensor]:
    state = live.state_dict()
    missing = [name for name in base if name not in state]
    if missing:
        raise MergeError(f"The live model lacks {len(missing)} tensors of the base, {missing[0]} first.")
    return {name: state[name] for name in base}


class _Term(NamedTuple):
    """One task vector's tensor in a sum; `keep` is None where nothing is dropped."""

    delta: Delta
    weight: float
    keep: Keep | None


def _keep_all(_name: str, _key: str, _delta: Delta) -> None:
    """Nothing is dropped."""


def piece_entries(device_type: str) -> int:
    """Entries merged at a time: what fits the processor's cache."""
    return _GPU_PIECE if device_type == "cuda" else _PIECE


def _require_finite(tensor: Tensor, key: str, name: str) -> None:
    if not bool(torch.isfinite(tensor).all()):
        raise MergeError(f"{key} of {name} holds values that are not finite.", "The checkpoint is damaged.")


def _require_equal_buffer(other: Tensor, base: Tensor, key: str, name: str) -> None:
    if other.dtype != base.dtype or not torch.equal(other.to(base.device), base):
        raise MergeError(f"{key} of {name} holds whole numbers other than the base's, which cannot be merged.", _UNLIKE)


def _merge_tensor(target: Tensor, base: Tensor, terms: Sequence[_Term], rule: SumRule) -> None:
    """Write base + sum of weighted, trimmed or dropped and (for TIES) sign-elected task vectors into `target`."""
    out, flat_base = target.view(-1), base.reshape(-1)  # a view or an error: a copy would leave the model as it was
    size = piece_entries(out.device.type)
    for start in range(0, out.numel(), size):
        piece = slice(start, start + size)
        weighted = []
        for delta, weight, keep in terms:
            values = delta.piece(piece) if keep is None else keep(delta.piece(piece))
            weighted.append(values * weight)
        merged = _combine(weighted, [term.weight for term in terms], rule)
        if rule.factor != 1.0:
            merged *= rule.factor
        out[piece] = merged.add_(flat_base[piece].float()).to(out.dtype)


def _combine(weighted: Sequence[Tensor], weights: Sequence[float], rule: SumRule) -> Tensor:
    """Sum of weighted task vectors; with sign election only the entries that agree with the sum's sign count."""
    total = weighted[0].clone() if len(weighted) > 1 else weighted[0]
    for values in weighted[1:]:
        total += values
    if not rule.elect_signs:
        return total.div_(rule.total) if rule.normalize else total
    if len(weighted) == 1:
        return total.div_(weights[0]) if rule.normalize and weights[0] else total
    majority = torch.ge(total, 0, out=torch.empty_like(total)).mul_(2).sub_(1)
    agreed = torch.zeros_like(total)
    for values in weighted:
        agreed += (values * majority).clamp_(min=0)  # magnitudes of those that agree
    agreed.mul_(majority)
    return agreed.div_(_agreeing_weight(weighted, weights, majority)) if rule.normalize else agreed


def _agreeing_weight(weighted: Sequence[Tensor], weights: Sequence[float], majority: Tensor) -> Tensor:
    """Sum of the weights whose task vectors agree with the majority, entry by entry; 1 where it is zero."""
    total = torch.zeros_like(majority)
    for values, weight in zip(weighted, weights, strict=True):
        total += (values * majority > 0) * weight
    return total.masked_fill_(total == 0, 1.0)


def _slerp_tensor(target: Tensor, base: Tensor, delta: Delta, parts: Factors) -> None:
    """Write the weighted sum of base and expert (base + delta) into `target`."""
    out, flat_base, size = target.view(-1), base.reshape(-1), piece_entries(target.device.type)
    for start in range(0, out.numel(), size):
        piece = slice(start, start + size)
        near = flat_base[piece].float()
        merged = near * parts.base + (near + delta.piece(piece)) * parts.expert
        out[piece] = merged.to(out.dtype)
