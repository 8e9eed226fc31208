"""The fast path: writes a candidate directly into the live model's parameters, without disk or reload.

Work that does not depend on the recipe (task vectors, their trim counts, the tensors that differ) is done once. Each
candidate is then one pass over the tensors that differ, in pieces that fit the processor's cache. Arithmetic is float32
whatever the live model's dtype; mergekit does the same with `dtype: float32, out_dtype: bfloat16`.
`core.merging.storage` stores the weights between merges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.errors import MergeError
from core.merging.arithmetic import Keep, Parts, SumRule, Term, piece_entries, sum_rule
from core.merging.dare import random_drop
from core.merging.device_trimming import DeviceTrim, DeviceTrimIndex, RescaledTrim, count_magnitudes, trimmed_by
from core.merging.mergekit_merge import merge_tensor
from core.merging.recipes import Recipe, by_tensor, task_weights
from core.merging.rivals.pool_facts import PoolFacts
from core.merging.rivals.sums import as_sum
from core.merging.slerp import Arc, angle_between, factors
from core.merging.storage import Delta, Storage, Stored
from core.merging.tensor_writer import TensorWriter, writer_for
from core.merging.trimming import Trim, TrimIndex

State = Mapping[str, Tensor]
_TRIMS_KEPT = 1 << 16
_NO_NORM = 1e-7  # mergekit's: tensors with a smaller norm are not rescaled
_UNLIKE = "Only models of the same architecture and size can be merged."


@dataclass(frozen=True)
class TaskVector:
    """theta_expert - theta_base (paper Eq. 1) for the tensors in which the two differ, with cached properties.

    Attributes:
        deltas: stored differences, by tensor.
        indices: counts of magnitudes, made when TIES first trims a tensor.
        angles: between base and expert, computed when SLERP first merges a tensor.
    """

    deltas: dict[str, Stored]
    indices: dict[str, TrimIndex | DeviceTrimIndex] = field(default_factory=dict)
    angles: dict[str, float | None] = field(default_factory=dict)


class MergePool:
    """The pool's weights, in memory, and the live model that candidates are written into.

    Args:
        live: the model to write into; its dtype is the dtype that is scored and saved.
        base_name: reference of the base as recipes name it.
        base: its tensors (float32 or bfloat16).
        storage: where weights are stored between merges; None = on the live model's device, unchanged.
        saved_dtype: narrower format that merges are saved in, to which they are rounded; None = the live model's.

    Experts are added one at a time, so that loading needs memory for only one full copy besides the base.

    Raises:
        MergeError: the live model lacks tensors of the base, or the base's are not finite.
    """

    def __init__(
        self,
        live: Any,
        base_name: str,
        base: State,
        storage: Storage | None = None,
        saved_dtype: torch.dtype | None = None,
    ) -> None:
        self.live = live
        self.base_name = base_name
        self._parameters = _named_tensors(live, base)
        self._at_base: set[str] = set()
        self._saved_dtype = saved_dtype
        self._written: str | None = None
        self._storage = storage or Storage(next(iter(self._parameters.values())).device)
        self.writer: TensorWriter = writer_for(self._storage.device)
        for key, tensor in base.items():
            _require_finite(tensor, key, base_name)
        self._base = {key: self._storage.of_base.keep(tensor) for key, tensor in base.items()}
        self._vectors: dict[str, TaskVector] = {}
        self._trims: dict[tuple[str, str, float], Trim | DeviceTrim] = {}
        self._factors: dict[tuple[str, str, float], Tensor] = {}
        self.facts = PoolFacts()

    @property
    def experts(self) -> tuple[str, ...]:
        """References of the experts that were added."""
        return tuple(self._vectors)

    @property
    def changing(self) -> frozenset[str]:
        """Names of the tensors in which any expert differs from the base; no recipe changes other tensors."""
        return frozenset(key for vector in self._vectors.values() for key in vector.deltas)

    @property
    def storage(self) -> Storage:
        """Where the weights are stored between merges."""
        return self._storage

    @property
    def base_tensors(self) -> State:
        """The base's tensors as the storage holds them."""
        return self._base

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the base's tensors."""
        return tuple(self._base)

    def changed_by(self, name: str) -> frozenset[str]:
        """Names of the tensors in which an expert differs from the base."""
        return frozenset(self._vectors[name].deltas)

    @property
    def unchanged(self) -> tuple[str, ...]:
        """Experts that differ from the base in no tensor."""
        return tuple(name for name, vector in self._vectors.items() if not vector.deltas)

    def add_expert(self, name: str, state: State) -> None:
        """Store an expert's tensors as a task vector; `state` is not needed afterwards.

        Raises:
            MergeError: tensors are missing, too many, of another shape, or not finite.
        """
        if extra := state.keys() - self._base.keys():
            message = f"{name} does not fit {self.base_name}: it has {len(extra)} more tensors, {min(extra)} first."
            raise MergeError(message, _UNLIKE, code="tensors-differ")
        deltas: dict[str, Stored] = {}
        for key, base in self._base.items():
            other = state.get(key)
            if other is None or other.shape != base.shape:
                found = "no such tensor" if other is None else f"shape {tuple(other.shape)}"
                message = f"{name} does not fit {self.base_name}: {key} has {found}, expected {tuple(base.shape)}."
                raise MergeError(message, _UNLIKE, code="tensors-differ")
            if not base.is_floating_point():
                _require_equal_buffer(other, base, key, name)
            stored = self._storage.keep_expert(other, base)
            if self._differs(stored, base, key, name):
                deltas[key] = stored
        self._vectors[name] = TaskVector(deltas)

    def _differs(self, stored: Stored, base: Tensor, key: str, name: str) -> bool:
        """Whether any entry of a task vector's tensor differs from zero; all must be finite."""
        differs = False
        for values in self._storage.fetch_delta(stored, self._storage.of_base.fetch(base)).pieces(
            piece_entries(base.device.type)
        ):
            _require_finite(values, key, name)
            differs = differs or bool(values.any())
        return differs

    @property
    def stored_bytes(self) -> dict[str, int]:
        """Bytes stored between merges, besides the live model: base, task vectors, trim counts, importance scores."""
        parts = {self.base_name: sum(tensor.nbytes for tensor in self._base.values())}
        parts |= {name: sum(s.values.nbytes for s in vector.deltas.values()) for name, vector in self._vectors.items()}
        indices = [index for vector in self._vectors.values() for index in vector.indices.values()]
        importance = self.facts.importance
        scores = {} if importance is None else {"importance scores": importance.nbytes}
        return parts | {"trim indices": sum(index.nbytes for index in indices)} | scores

    @property
    def written(self) -> str | None:
        """Identifies the weights that the live model holds: equal texts mean equal weights; None = unknown."""
        return self._written

    def write_parent(self, name: str) -> None:
        """Make the live model the base or one of the experts."""
        self._written = None
        if name == self.base_name:
            self._write(lambda _key: _Sum({}), _keep_all)
        else:
            self._write(lambda _key: _Sum({name: 1.0}), _keep_all)
        self._round()
        self._written = f"parent {name}"

    def apply(self, recipe: Recipe) -> None:
        """Merge `recipe` into the live model.

        Raises:
            MergeError: a model of the recipe is not in the pool.
        """
        missing = [name for name in recipe.experts if name not in self._vectors]
        if missing or recipe.base != self.base_name:
            named = ", ".join(missing) or recipe.base
            raise MergeError(f"The recipe names models outside the pool: {named}.", code="outside-pool")
        self._written, asked = None, recipe
        if recipe.info.adds_models:
            recipe = as_sum(recipe)
        local = by_tensor(recipe, self._base)
        if recipe.by_mergekit:
            self._write_whole(recipe.experts, lambda key, here, deltas: merge_tensor(local[key], key, here, deltas))
        elif recipe.info.rule:
            self._write_whole(recipe.experts, self.facts.merger(recipe, self.changing, self._whole_layer))
        elif recipe.info.interpolates:
            self._write_between(recipe.experts[0], {key: part.weights[0] for key, part in local.items()})
        else:
            parts = {id(part): part for part in local.values()}
            sums = {number: _sum_of(part) for number, part in parts.items()}
            self._write(lambda key: sums[id(local[key])], partial(self._keep, local))
        self._round()
        self._written = asked.model_dump_json()

    def _round(self, *keys: str) -> None:
        """Round tensors to the format that they are saved in; without names those that differ from the base's."""
        if self._saved_dtype is None:
            return
        with torch.no_grad():
            for key in keys or self._base.keys() - self._at_base:
                tensor = self._parameters[key]
                if tensor.is_floating_point():
                    tensor.copy_(tensor.to(self._saved_dtype))

    def _keep(self, local: Mapping[str, Recipe], name: str, key: str, delta: Delta) -> Keep | None:
        """The callable that drops entries of an expert's tensor; None where all are kept."""
        recipe = local[key]
        density = recipe.densities[recipe.experts.index(name)] if recipe.densities else 1.0
        if density >= 1:
            return None
        if recipe.drops_at_random:
            return random_drop(recipe.mask_version, recipe.seed, name, key, density)
        trim = self._trim(name, key, delta, density)
        if not recipe.option("rescale", False):
            return trimmed_by(trim)
        factor = self._rescaling(name, key, delta, density)
        return RescaledTrim(trimmed_by(trim), factor)

    def _rescaling(self, name: str, key: str, delta: Delta, density: float) -> Tensor:
        """() factor that restores a trimmed tensor's L1 norm (mergekit's `rescale`)."""
        known = self._factors.get((name, key, density))
        if known is None:
            if len(self._factors) >= _TRIMS_KEPT:
                self._factors.clear()
            keep = trimmed_by(self._trim(name, key, delta, density))
            before, after = torch.zeros(2, dtype=torch.float64, device=delta.values.device)
            for values in delta.pieces(piece_entries(delta.values.device.type)):
                before += values.abs().sum()
                after += keep(values).abs().sum()
            known = torch.where((before < _NO_NORM) | (after < _NO_NORM), 1.0, before / after)
            self._factors[name, key, density] = known
        return known

    def _write_whole(self, names: Sequence[str], merge: Callable[[str, Tensor, Mapping[str, Tensor]], Tensor]) -> None:
        """Write what `merge` makes of each tensor's name, the base's values and the experts' whole differences."""
        with torch.no_grad():
            for key in self._base:
                if any(key in self._vectors[name].deltas for name in names):
                    self._target(key).copy_(merge(key, *self._whole_layer(key)))
                else:
                    self._write_base(key)

    def _whole_layer(self, key: str) -> tuple[Tensor, dict[str, Tensor]]:
        """A tensor of the base on the device, and the float32 differences of the experts that differ there."""
        here = self._storage.of_base.fetch(self._base[key])
        vectors = {name: vector.deltas[key] for name, vector in self._vectors.items() if key in vector.deltas}
        return here, {
            name: self._storage.fetch_delta(stored, here).whole.view(here.shape) for name, stored in vectors.items()
        }

    def experts_of(self, key: str, experts: Sequence[str]) -> list[str]:
        """Those of some experts that differ from the base in a tensor."""
        return [name for name in experts if key in self._vectors[name].deltas]

    def parts(self, key: str, recipe: Recipe) -> Parts:
        """What a tensor is merged from by a method of task vectors, with the experts whose weight is 0.

        Args:
            key: name of the tensor.
            recipe: of the tensor, without scopes.
        """
        here, sums = self._storage.of_base.fetch(self._base[key]), _sum_of(recipe)
        names = self.experts_of(key, recipe.experts)
        deltas = [self._storage.fetch_delta(self._vectors[name].deltas[key], here) for name in names]
        terms = [
            Term(delta, sums.weights[name], self._keep({key: recipe}, name, key, delta))
            for name, delta in zip(names, deltas, strict=True)
        ]
        return Parts(here, names, terms, sums.rule)

    def arc(self, key: str, name: str) -> Arc:
        """What SLERP merges a tensor from, which the expert `name` changes."""
        here, vector = self._storage.of_base.fetch(self._base[key]), self._vectors[name]
        delta = self._storage.fetch_delta(vector.deltas[key], here)
        if key not in vector.angles:
            vector.angles[key] = angle_between(here, delta)
        return Arc(here, delta, vector.angles[key])

    def merged_tensor(self, key: str, recipe: Recipe) -> Tensor:
        """A tensor of a merge in float32; the live model stays unchanged.

        Args:
            key: name of a tensor in which an expert of the recipe differs from the base.
            recipe: of the tensor, without scopes; of any method but SLERP.
        """
        if recipe.by_mergekit:
            return merge_tensor(recipe, key, *self._whole_layer(key))
        parts = self.parts(key, recipe)
        merged = torch.empty(parts.base.shape, dtype=torch.float32, device=parts.base.device)
        self.writer.write_sum(merged, parts.base, parts.terms, parts.rule)
        return merged

    def _write(self, sum_of: Callable[[str], _Sum], keep: Callable[[str, str, Delta], Keep | None]) -> None:
        """Write each tensor's sum of weighted task vectors."""
        with torch.no_grad():
            for key, base in self._base.items():
                weights, rule = sum_of(key)
                used = {name: weight for name, weight in weights.items() if weight != 0.0 or rule.elect_signs}
                names = [name for name in used if key in self._vectors[name].deltas]
                if not names:
                    self._write_base(key)
                    continue
                here = self._storage.of_base.fetch(base)
                deltas = [self._storage.fetch_delta(self._vectors[name].deltas[key], here) for name in names]
                terms = [
                    Term(delta, used[name], keep(name, key, delta)) for name, delta in zip(names, deltas, strict=True)
                ]
                self.writer.write_sum(self._target(key), here, terms, rule)

    def _write_between(self, name: str, t: Mapping[str, float]) -> None:
        """SLERP at each tensor's t between the base (0) and an expert (1)."""
        vector = self._vectors[name]
        with torch.no_grad():
            for key in self._base:
                if key not in vector.deltas:
                    self._write_base(key)
                    continue
                arc = self.arc(key, name)
                self.writer.write_between(self._target(key), arc.base, arc.delta, factors(arc.angle, t[key]))

    def _write_base(self, key: str) -> None:
        """Copy the base's tensor into the live model, unless it is there already, as most tensors of most pools are."""
        if key not in self._at_base:
            self._parameters[key].copy_(self._base[key])
            self._round(key)
            self._at_base.add(key)

    def _target(self, key: str) -> Tensor:
        """A tensor of the live model that is about to be overwritten with other values than the base's."""
        self._at_base.discard(key)
        return self._parameters[key]

    def _trim(self, name: str, key: str, delta: Delta, density: float) -> Trim | DeviceTrim:
        cached = self._trims.get((name, key, density))
        if cached is None:
            if len(self._trims) >= _TRIMS_KEPT:  # a long search has new densities for every candidate
                self._trims.clear()
            vector = self._vectors[name]
            index = vector.indices.get(key)
            if index is None:
                index = vector.indices[key] = count_magnitudes(delta)
            cached = self._trims[name, key, density] = index.trim(delta, density)
        return cached


def _named_tensors(live: Any, base: State) -> dict[str, Tensor]:
    state = live.state_dict()
    missing = [name for name in base if name not in state]
    if missing:
        message = f"The live model lacks {len(missing)} tensors of the base, {missing[0]} first."
        raise MergeError(message, code="live-model-lacks-tensors")
    return {name: state[name] for name in base}


class _Sum(NamedTuple):
    """Weights of the task vectors by expert, and the rule that combines them."""

    weights: Mapping[str, float]
    rule: SumRule = SumRule()


def _sum_of(recipe: Recipe) -> _Sum:
    return _Sum(dict(zip(recipe.experts, task_weights(recipe), strict=True)), sum_rule(recipe))


def _keep_all(_name: str, _key: str, _delta: Delta) -> None:
    """Keep all entries."""


def _require_finite(tensor: Tensor, key: str, name: str) -> None:
    if not bool(torch.isfinite(tensor).all()):
        message = f"{key} of {name} holds values that are not finite."
        hint = "The checkpoint is damaged: download it again, or choose another revision."
        raise MergeError(message, hint, code="weights-not-finite")


def _require_equal_buffer(other: Tensor, base: Tensor, key: str, name: str) -> None:
    if other.dtype != base.dtype or not torch.equal(other.to(base.device), base):
        message = f"{key} of {name} holds integers that differ from the base's and cannot be merged."
        raise MergeError(message, _UNLIKE, code="integers-differ")
