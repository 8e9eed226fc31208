"""The pool of a run, resident: one live model whose weights become a parent's or a candidate's at will."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.events import Progress
from core.merging.engine import MergePool
from core.models.chat_format import Conversation
from core.models.generation import generate_all
from core.models.loading import in_precision, load_model, load_state, load_tokenizer, locate, untied_state
from core.models.precision import fast_dtype, pick_device
from core.models.references import parse_reference
from core.search.genome import Genome
from core.search.layout import layout_of
from core.settings import Settings
from core.specs import PoolSpec, SearchSpec


@dataclass(frozen=True)
class LivePool:
    """A loaded pool.

    Attributes:
        members: the N models being merged, the base first.
        anchor: the model task vectors are taken from: the base, or the outside ancestor.
        live: the one model that generates and scores.
        merge: writes parents and candidates into `live`.
        mergekit_names: how mergekit names the models that have a name here only.
    """

    members: tuple[str, ...]
    anchor: str
    live: Any
    tokenizer: Any
    merge: MergePool
    mergekit_names: Mapping[str, str]

    @property
    def anchor_is_member(self) -> bool:
        """False when task vectors are taken from a model outside the pool."""
        return self.anchor in self.members

    @property
    def merged_experts(self) -> tuple[str, ...]:
        """The models that have a task vector."""
        return tuple(name for name in self.members if name != self.anchor)

    def genome(self, search: SearchSpec) -> Genome:
        """What a search changes on this pool.

        Raises:
            SpecError: the models have no such groups of blocks or tensors.
        """
        changed = {name: self.merge.changed_by(name) for name in self.merged_experts}
        return Genome(
            method=search.method,
            base=self.anchor,
            experts=self.merged_experts,
            base_is_member=self.anchor_is_member,
            seed=search.seed,
            layout=layout_of(search.genome, self.merge.tensors, changed),
            negative_weights=search.genome.allow_negative_weights,
            normalize=search.genome.normalize,
        )

    def as_text_model(self, name: str) -> PoolMember:
        """A member that answers conversations with the live model."""
        return PoolMember(self, name)


@dataclass(frozen=True)
class PoolMember:
    """A member of the pool as a `TextModel`: its weights are written into the live model before it answers."""

    pool: LivePool
    name: str

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        self.pool.merge.write_parent(self.name)
        speaker = LoadedModel(self.pool.live, self.pool.tokenizer)
        return speaker.reply(conversations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)


@dataclass(frozen=True)
class LoadedModel:
    """A model of its own, outside the pool, as a `TextModel` (the question generator)."""

    model: Any
    tokenizer: Any

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        return generate_all(
            self.model,
            self.tokenizer,
            conversations,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )


def load_pool(
    spec: PoolSpec, settings: Settings, into: Callable[[LivePool], None], dtype: torch.dtype | None = None
) -> Iterator[Progress]:
    """Load the pool's weights, telling progress; the loaded pool is handed to `into`.

    Args:
        spec: which models.
        settings: where they are.
        into: is given the pool once it is loaded.
        dtype: number format of the live model; None = the one this machine is fastest in, as measured now.

    Raises:
        ModelError: a model cannot be had or opened.
        MergeError: the models do not fit together.
    """
    device = pick_device()
    members = (spec.base, *(expert.model for expert in spec.experts))
    anchor = spec.ancestor or spec.base
    total = len(set(members) | {anchor})
    yield Progress(phase="loading", done=0, total=total, message=f"loading {anchor}")
    live, state = _live_and_state(anchor, settings, device, dtype or fast_dtype(device))
    tokenizer = load_tokenizer(parse_reference(spec.base, settings), settings)
    merge = MergePool(live, anchor, state)
    for done, name in enumerate([name for name in members if name != anchor], start=1):
        yield Progress(phase="loading", done=done, total=total, message=f"loading {name}")
        merge.add_expert(name, _state(name, settings, device))
    yield Progress(phase="loading", done=total, total=total)
    names = _mergekit_names((anchor, *members), settings)
    into(LivePool(members, anchor, live, tokenizer, merge, names))


def _mergekit_names(models: Sequence[str], settings: Settings) -> dict[str, str]:
    """Demo models as the base and adapter folders they are."""
    references = {name: parse_reference(name, settings) for name in models}
    places = {name: locate(ref, settings) for name, ref in references.items() if ref.kind == "demo"}
    return {name: "+".join(str(part) for part in place if part is not None) for name, place in places.items()}


def _live_and_state(
    anchor: str, settings: Settings, device: torch.device, dtype: torch.dtype
) -> tuple[Any, dict[str, torch.Tensor]]:
    """The live model as `dtype` and the anchor's tensors in float32, from one load."""
    model = load_model(parse_reference(anchor, settings), settings, torch.float32, device)
    copied = dtype == torch.float32  # else the model gets new tensors and leaves these alone
    state = {key: tensor.clone() if copied else tensor for key, tensor in untied_state(model).items()}
    return in_precision(model, dtype), state


def _state(name: str, settings: Settings, device: torch.device) -> dict[str, torch.Tensor]:
    """Tensors in float32: in bfloat16 most entries of a small fine-tune's task vector would round to zero."""
    state = load_state(parse_reference(name, settings), settings, torch.float32)
    return {key: tensor.to(device) for key, tensor in state.items()}
