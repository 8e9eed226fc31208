"""The loaded pool of a run: one live model into which the weights of a parent or a candidate are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from core.contracts.events import Progress, Warned
from core.contracts.run_spec import PoolSpec, SearchSpec
from core.errors import MergeError
from core.jobs.pool_hashes import PoolHashes
from core.jobs.token_rows import TokenRows
from core.merging.engine import MergePool
from core.merging.recipes import LATEST_MASK_VERSION
from core.merging.storage import Storage
from core.models.allocation import keep_freed_memory
from core.models.chat_format import Conversation
from core.models.generation import generate_all
from core.models.loading import (
    cast_parameters,
    load_model,
    load_tokenizer,
    locate,
    open_state,
    tokenizer_or,
    untied_state,
)
from core.models.member_tokenizer import asked_with
from core.models.memory import MemoryPlan
from core.models.metadata import read_metadata
from core.models.output_layer import match_output_layer
from core.models.overflow_check import refuse_overflow
from core.models.own_settings import (
    read_own_settings,
    same_configuration,
    same_generation,
    under_settings,
)
from core.models.precision import choose_dtype, pick_device
from core.models.references import parse_reference
from core.models.saved_format import common_format, saved_format, set_saved_format
from core.search.genome import Genome
from core.search.parameter_groups import layout_of
from core.settings import Settings


@dataclass(frozen=True)
class LivePool:
    """A loaded pool.

    Attributes:
        members: the N models being merged, the base first.
        anchor: the model that task vectors start from: the base, or an ancestor outside the pool.
        live: the model that merges are written into, under the configuration that `pool.config` names.
        tokenizer: of the merge.
        merge: writes parents and candidates into `live`.
        mergekit_names: mergekit's names of models that it does not know by ours.
        tokenizer_source: model whose vocabulary the merge has, if the other vocabularies were fitted to it.
        own: members with a configuration, generation settings or tokenizer of their own, which share the live model's
            weights.
    """

    members: tuple[str, ...]
    anchor: str
    live: Any
    tokenizer: Any
    merge: MergePool
    mergekit_names: Mapping[str, str]
    tokenizer_source: str | None = None
    own: Mapping[str, LoadedModel] = field(default_factory=dict)

    @cached_property
    def hashes(self) -> PoolHashes:
        """Hashes of the weights that were written into the live model."""
        return PoolHashes(self.merge)

    @property
    def anchor_is_member(self) -> bool:
        """False when task vectors start from a model outside the pool."""
        return self.anchor in self.members

    @property
    def merged_experts(self) -> tuple[str, ...]:
        """The models that have a task vector."""
        return tuple(name for name in self.members if name != self.anchor)

    def genome(self, search: SearchSpec, mask_version: int = LATEST_MASK_VERSION) -> Genome:
        """The parameters that a search changes on this pool.

        Args:
            search: the spec's.
            mask_version: version of DARE's masks in the recipes.

        Raises:
            SpecError: the models lack the groups of blocks or tensors that the spec names.
        """
        changed = {name: self.merge.changed_by(name) for name in self.merged_experts}
        return Genome(
            method=search.method,
            base=self.anchor,
            experts=self.merged_experts,
            base_is_member=self.anchor_is_member,
            seed=search.seed,
            fixed_parameters=tuple(sorted(search.parameters.items())),
            layout=layout_of(search.genome, self.merge.tensors, changed),
            negative_weights=search.genome.allow_negative_weights,
            normalize=search.genome.normalize,
            mask_version=mask_version,
        )

    def as_text_model(self, name: str) -> PoolMember:
        """A member that answers conversations under its own settings."""
        return PoolMember(self, name)

    def member(self, name: str) -> LoadedModel:
        """The model and tokenizer that measure a member as itself, once its weights are written."""
        return self.own.get(name) or LoadedModel(self.live, self.tokenizer)


@dataclass(frozen=True)
class PoolMember:
    """A member of the pool as a `TextModel`: its weights are written into the live model before it answers."""

    pool: LivePool
    name: str

    def reply(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        self.pool.merge.write_parent(self.name)
        model = self.pool.member(self.name)
        return model.reply(conversations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model as a `TextModel`, for example the question generator outside the pool."""

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


_HALF_FORMATS = {"BF16": torch.bfloat16, "F16": torch.float16}


def load_pool(
    spec: PoolSpec,
    settings: Settings,
    on_loaded: Callable[[LivePool], None],
    dtype: torch.dtype | None = None,
    memory: MemoryPlan | None = None,
) -> Iterator[Progress]:
    """Load the pool's weights, yielding progress; `on_loaded` gets the loaded pool.

    Args:
        spec: which models.
        settings: where models are stored.
        on_loaded: called with the pool once it is loaded.
        dtype: number format of the live model; None = as `spec.dtype` says.
        memory: where the weights are stored between merges; None = in float32 beside the live model.

    Raises:
        ModelError: a model is unavailable or cannot be opened.
        MergeError: the models do not fit together.
    """
    device = pick_device()
    storage = Storage(device, memory.on_host, memory.compact, memory.base_on_device) if memory else Storage(device)
    members = (spec.base, *(expert.model for expert in spec.experts))
    anchor = spec.ancestor or spec.base
    total = len(set(members) | {anchor})
    yield Progress(phase="loading", done=0, total=total, message=f"loading {anchor}")
    dtype = dtype or choose_dtype(spec.dtype, settings, device).dtype
    live, state = _live_and_state(anchor, settings, storage, dtype)
    owner = spec.settings_owner
    if anchor != owner:
        other = read_own_settings(parse_reference(owner, settings), settings)
        live = under_settings(live, other.config, other.generation)
    set_saved_format(live, common_format(_config(name, settings) for name in {*members, anchor}))
    tokenizer = _pool_tokenizer(spec, live, settings)
    merge = MergePool(live, anchor, state, storage, saved_format(live))
    del state  # offloaded tensors have been copied
    rows = TokenRows(spec, live, settings)
    for done, name in enumerate([name for name in members if name != anchor], start=1):
        yield Progress(phase="loading", done=done, total=total, message=f"loading {name}")
        _add_expert(merge, name, rows, storage)
    yield Progress(phase="loading", done=total, total=total)
    own = {name: model for name in members if name != owner and (model := _own(name, spec, live, tokenizer, settings))}
    names = _mergekit_names((anchor, *members), settings)
    if device.type == "cpu":
        keep_freed_memory()
    pool = LivePool(members, anchor, live, tokenizer, merge, names, rows.source, own)
    if dtype == torch.float16:
        _refuse_overflow(pool)
    on_loaded(pool)


def _refuse_overflow(pool: LivePool) -> None:
    """Raise `ModelError` if a member of a pool in float16 computes values above that format's limit."""
    for name in pool.members:
        pool.merge.write_parent(name)
        refuse_overflow(pool.member(name).model, name)


def warn_about_copies(pool: LivePool) -> Iterator[Warned]:
    """A warning for each expert that has the same weights as the base.

    Raises:
        MergeError: all experts have (code `nothing-to-merge`).
    """
    copies, base = pool.merge.unchanged, pool.anchor
    if copies == pool.merge.experts:
        raise MergeError(
            f"There is nothing to merge: {' and '.join(copies)} has the same weights as {base}.",
            "Choose a model that was fine-tuned from it.",
            code="nothing-to-merge",
        )
    for name in copies:
        hint = "It adds nothing to the merge: remove it from the pool."
        yield Warned(message=f"{name} has the same weights as {base}.", hint=hint)


def _pool_tokenizer(spec: PoolSpec, live: Any, settings: Settings) -> Any:
    """The tokenizer of the merge: the base's, or that of the model that `pool.config` names if the rows agree."""
    owner, tokenizer = spec.settings_owner, load_tokenizer(parse_reference(spec.base, settings), settings)
    if owner == spec.base:
        return tokenizer
    other = tokenizer_or(tokenizer, parse_reference(owner, settings), settings, spec.template_of(owner))
    return asked_with(other, tokenizer, live.config.get_text_config().vocab_size).tokenizer


def _own(name: str, spec: PoolSpec, live: Any, tokenizer: Any, settings: Settings) -> LoadedModel | None:
    """A member under its own settings; None where they are those of the merge."""
    reference, template = parse_reference(name, settings), spec.template_of(name)
    owner = parse_reference(spec.settings_owner, settings)
    if template is None and locate(reference, settings).folder == locate(owner, settings).folder:
        return None
    its = read_own_settings(reference, settings, template, otherwise=tokenizer)
    its_tokenizer = asked_with(its.tokenizer, tokenizer, live.config.get_text_config().vocab_size).tokenizer
    if same_configuration(its.config, live.config) and same_generation(its.generation, live.generation_config):
        return None if its_tokenizer is tokenizer else LoadedModel(live, its_tokenizer)
    return LoadedModel(under_settings(live, its.config, its.generation), its_tokenizer)


def _config(name: str, settings: Settings) -> Any:
    """A member's configuration."""
    from transformers import AutoConfig

    folder = locate(parse_reference(name, settings), settings).folder
    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _mergekit_names(models: Sequence[str], settings: Settings) -> dict[str, str]:
    """mergekit's names of demo models: the folders of base and adapter."""
    references = {name: parse_reference(name, settings) for name in models}
    places = {name: locate(ref, settings) for name, ref in references.items() if ref.kind == "demo"}
    return {name: "+".join(str(part) for part in place if part is not None) for name, place in places.items()}


def _live_and_state(
    anchor: str, settings: Settings, storage: Storage, dtype: torch.dtype
) -> tuple[Any, dict[str, torch.Tensor]]:
    """The live model in `dtype`, and the anchor's tensors in the format that they were read in, from one load."""
    read_as = _read_as(anchor, settings, storage)
    place = torch.device("cpu") if storage.of_base.on_host else storage.device
    model = load_model(parse_reference(anchor, settings), settings, read_as, place)
    if place.type == "cpu":
        _copy_from_file(model)
    state = untied_state(model)
    live = cast_parameters(model, dtype).to(storage.device)
    # A conversion makes new tensors. Tensors without one, always including buffers, are shared with the live model,
    # into which merges are written, so they are copied.
    shared = {tensor.data_ptr() for tensor in live.state_dict().values()}
    return live, {key: tensor.clone() if tensor.data_ptr() in shared else tensor for key, tensor in state.items()}


def _copy_from_file(model: Any) -> None:
    """Copy a model's tensors, which may be mapped from its file: its later changes would change the run."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _add_expert(merge: MergePool, name: str, rows: TokenRows, storage: Storage) -> None:
    """Add an expert to the pool, with the base's token rows where its own mean other tokens."""
    settings = rows.settings
    reference = parse_reference(name, settings)
    place = torch.device("cpu") if storage.on_host else storage.device
    with open_state(reference, settings, _read_as(name, settings, storage), place) as state:
        expert = state
        if state.keys() != merge.base_tensors.keys():
            expert = match_output_layer(state, merge.live, name)
        merge.add_expert(name, rows.fit(name, expert, merge.base_tensors))


def _read_as(name: str, settings: Settings, storage: Storage) -> torch.dtype:
    """The format that a model's tensors are read in.

    It is float32, because most entries of a small fine-tune's task vector would round to zero in bfloat16. A compact
    pool reads a plain checkpoint in its own format if all tensors have the same one.
    """
    reference = parse_reference(name, settings)
    if not storage.compact or reference.adapter is not None or reference.kind == "demo":
        return torch.float32
    formats = {facts.dtype for facts in read_metadata(reference, settings).tensors.values()}
    return _HALF_FORMATS.get(formats.pop(), torch.float32) if len(formats) == 1 else torch.float32
