"""The pool of a run, resident: one live model whose weights become a parent's or a candidate's at will."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.contracts.events import Progress, Warned
from core.contracts.run_spec import PoolSpec, SearchSpec
from core.errors import MergeError
from core.merging.engine import MergePool
from core.merging.recipes import LATEST_MASK_VERSION
from core.merging.storage import Storage
from core.models.allocation import keep_freed_memory
from core.models.chat_format import Conversation
from core.models.generation import generate_all
from core.models.loading import (
    in_precision,
    load_model,
    load_state,
    load_tokenizer,
    locate,
    untied_state,
    vocabulary_size,
)
from core.models.memory import MemoryPlan
from core.models.metadata import read_metadata
from core.models.precision import fast_dtype, pick_device
from core.models.references import parse_reference
from core.models.vocabulary import fit_vocabulary
from core.search.genome import Genome
from core.search.parameter_groups import layout_of
from core.settings import Settings


@dataclass(frozen=True)
class LivePool:
    """A loaded pool.

    Attributes:
        members: the N models being merged, the base first.
        anchor: the model task vectors are taken from: the base, or the outside ancestor.
        live: the one model that generates and scores.
        merge: writes parents and candidates into `live`.
        mergekit_names: how mergekit names the models that have a name here only.
        tokenizer_source: the model whose vocabulary the merge has, where those of the pool were fitted to it.
    """

    members: tuple[str, ...]
    anchor: str
    live: Any
    tokenizer: Any
    merge: MergePool
    mergekit_names: Mapping[str, str]
    tokenizer_source: str | None = None

    @property
    def anchor_is_member(self) -> bool:
        """False when task vectors are taken from a model outside the pool."""
        return self.anchor in self.members

    @property
    def merged_experts(self) -> tuple[str, ...]:
        """The models that have a task vector."""
        return tuple(name for name in self.members if name != self.anchor)

    def genome(self, search: SearchSpec, mask_version: int = LATEST_MASK_VERSION) -> Genome:
        """What a search changes on this pool.

        Args:
            search: the spec's.
            mask_version: of DARE's masks.

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
            parameters=tuple(sorted(search.parameters.items())),
            layout=layout_of(search.genome, self.merge.tensors, changed),
            negative_weights=search.genome.allow_negative_weights,
            normalize=search.genome.normalize,
            mask_version=mask_version,
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


_NARROW = {"BF16": torch.bfloat16, "F16": torch.float16}


def load_pool(
    spec: PoolSpec,
    settings: Settings,
    into: Callable[[LivePool], None],
    dtype: torch.dtype | None = None,
    memory: MemoryPlan | None = None,
) -> Iterator[Progress]:
    """Load the pool's weights, telling progress; the loaded pool is handed to `into`.

    Args:
        spec: which models.
        settings: where they are.
        into: is given the pool once it is loaded.
        dtype: number format of the live model; None = the one this machine is fastest in, as measured now.
        memory: how the weights wait between merges; None = in float32 beside the live model.

    Raises:
        ModelError: a model cannot be had or opened.
        MergeError: the models do not fit together.
    """
    device = pick_device()
    storage = Storage(device, memory.on_host, memory.compact) if memory else Storage(device)
    members = (spec.base, *(expert.model for expert in spec.experts))
    anchor = spec.ancestor or spec.base
    total = len(set(members) | {anchor})
    yield Progress(phase="loading", done=0, total=total, message=f"loading {anchor}")
    live, state = _live_and_state(anchor, settings, storage, dtype or fast_dtype(device))
    tokenizer = load_tokenizer(parse_reference(spec.base, settings), settings)
    merge = MergePool(live, anchor, state, storage)
    del state  # of what waits elsewhere there is a second copy by now
    tokenizer_source: str | None = None
    for done, name in enumerate([name for name in members if name != anchor], start=1):
        yield Progress(phase="loading", done=done, total=total, message=f"loading {name}")
        expert = _state(name, settings, storage)
        if spec.vocabulary == "base":
            rows = vocabulary_size(parse_reference(name, settings), settings)
            whole, expert = expert, fit_vocabulary(expert, merge.base_tensors, rows)
            if any(expert[key] is not whole[key] for key in whole):
                tokenizer_source = spec.base
            del whole
        merge.add_expert(name, expert)
    yield Progress(phase="loading", done=total, total=total)
    names = _mergekit_names((anchor, *members), settings)
    if device.type == "cpu":
        keep_freed_memory()
    into(LivePool(members, anchor, live, tokenizer, merge, names, tokenizer_source))


def warn_of_copies(pool: LivePool) -> Iterator[Warned]:
    """A warning for each expert that has the base's weights and so brings nothing.

    Raises:
        MergeError: all are such.
    """
    copies, base = pool.merge.unchanged, pool.anchor
    if copies == pool.merge.experts:
        raise MergeError(
            f"There is nothing to merge: {' and '.join(copies)} has the same weights as {base}.",
            "Name a model that was fine-tuned from it.",
        )
    for name in copies:
        hint = "It adds nothing to the merge: leave it out."
        yield Warned(message=f"{name} has the same weights as {base}.", hint=hint)


def _mergekit_names(models: Sequence[str], settings: Settings) -> dict[str, str]:
    """Demo models as the base and adapter folders they are."""
    references = {name: parse_reference(name, settings) for name in models}
    places = {name: locate(ref, settings) for name, ref in references.items() if ref.kind == "demo"}
    return {name: "+".join(str(part) for part in place if part is not None) for name, place in places.items()}


def _live_and_state(
    anchor: str, settings: Settings, storage: Storage, dtype: torch.dtype
) -> tuple[Any, dict[str, torch.Tensor]]:
    """The live model as `dtype` and the anchor's tensors, in the format they are read in, from one load."""
    read_as = _read_as(anchor, settings, storage)
    place = torch.device("cpu") if storage.on_host else storage.device
    model = load_model(parse_reference(anchor, settings), settings, read_as, place)
    state = untied_state(model)
    live = in_precision(model, dtype).to(storage.device)
    # Tensors that got another format are new ones; merges are written into the others, buffers always among them.
    written = {tensor.data_ptr() for tensor in live.state_dict().values()}
    return live, {key: tensor.clone() if tensor.data_ptr() in written else tensor for key, tensor in state.items()}


def _state(name: str, settings: Settings, storage: Storage) -> dict[str, torch.Tensor]:
    return load_state(parse_reference(name, settings), settings, _read_as(name, settings, storage))


def _read_as(name: str, settings: Settings, storage: Storage) -> torch.dtype:
    """float32: in bfloat16 most entries of a small fine-tune's task vector would round to zero.

    A compact pool reads a plain checkpoint in its own format, when all of its tensors have the same.
    """
    reference = parse_reference(name, settings)
    if not storage.compact or reference.adapter is not None or reference.kind == "demo":
        return torch.float32
    formats = {facts.dtype for facts in read_metadata(reference, settings).tensors.values()}
    return _NARROW.get(formats.pop(), torch.float32) if len(formats) == 1 else torch.float32
