"""Models and guards for the chat, cached in the app's process: loaded at first use, the least recently used unloaded.

A model is loaded only into memory that is free and not reserved by a run in progress. If memory is short, the chat
refuses the model, so that the run does not fail.
"""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from core.contracts.comparison_spec import AnySpec
from core.contracts.verdicts import Verdict
from core.errors import ModelError
from core.guards.guard_names import GuardName, parse_guards
from core.guards.panel import GuardPanel
from core.guards.protocol import Guard, judge_replies
from core.models.metadata import ModelMetadata
from core.models.references import ModelReference
from core.settings import Settings
from safemerge_ui.watch import BusyNeeds

if TYPE_CHECKING:
    from core.models.chat_format import Conversation
    from core.models.memory import FreeMemory, MemoryPlan
    from core.models.streaming import Decoding

CAPACITY = 4
"""Most models in memory: three side by side, and a guard."""
MAX_NEW_TOKENS = 160


class Models(Protocol):
    """What the page asks of models: `ModelCache`, or `safemerge_ui.zero_gpu.ZeroGpu` where a GPU is lent per call."""

    def holds(self, ref: ModelReference) -> bool:
        """Return True if the model is loaded."""

    def stream(self, ref: ModelReference, conversation: Conversation, decoding: Decoding) -> Iterator[str]:
        """Yield the model's reply to a conversation so far, each time that it has grown."""

    def reply(self, ref: ModelReference, prompt: str) -> str:
        """Return the model's reply to one prompt, decoded greedily."""

    def judge(self, guard: str, prompt: str, reply: str) -> Verdict:
        """Return the verdict of a guard on one reply."""


class LentGpu(Models, Protocol):
    """A GPU that is lent for single calls, which also runs comparisons: no run has a worker there."""

    def start(self, spec: AnySpec) -> str:
        """Run a comparison; returns the run's id once its log has begun."""


class LoadedModel(NamedTuple):
    """A model ready to generate, with its tokenizer."""

    model: Any
    tokenizer: Any


@dataclass(frozen=True)
class _CachedGuard:
    """A guard that is loaded into the cache when it judges, so that the guards of a panel are loaded one at a time."""

    load: Callable[[GuardName], Guard]
    guard_name: GuardName

    @property
    def name(self) -> str:
        return self.guard_name.text

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        return self.load(self.guard_name).judge(pairs)


class ModelCache:
    """A few loaded models, shared by all pages; one thread at a time loads or generates.

    Args:
        settings: where models are stored.
        capacity: most models in memory.
        busy: returns the memory that the run in progress on this machine needs, None without such a run.
    """

    def __init__(
        self, settings: Settings, capacity: int = CAPACITY, busy: Callable[[], BusyNeeds | None] = lambda: None
    ) -> None:
        self._settings = settings
        self._capacity = capacity
        self._busy = busy
        self._loaded: OrderedDict[str, LoadedModel | Guard] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def holds(self, ref: ModelReference) -> bool:
        """Return True if the model is loaded."""
        return str(ref) in self._loaded

    def reply(self, ref: ModelReference, prompt: str) -> str:
        """Return the model's reply to one prompt, decoded greedily.

        Raises:
            ModelError: the model cannot be loaded, or does not fit into memory.
        """
        from core.models.generation import generate

        with self._lock:
            loaded = self._model(ref)
            conversation = [{"role": "user", "content": prompt}]
            replies = dict(generate(loaded.model, loaded.tokenizer, [conversation], max_new_tokens=MAX_NEW_TOKENS))
        return replies[0]

    def stream(self, ref: ModelReference, conversation: Conversation, decoding: Decoding) -> Iterator[str]:
        """Yield the model's reply to a conversation so far, each time that it has grown.

        Other calls wait until the iterator has ended or is closed.

        Raises:
            ModelError: the model cannot be loaded, does not fit into memory, or its chat template refuses the messages.
        """
        from core.models.streaming import stream_reply

        with self._lock:
            loaded = self._model(ref)
            yield from stream_reply(loaded.model, loaded.tokenizer, conversation, decoding)

    def judge(self, guard: str, prompt: str, reply: str) -> Verdict:
        """Return the verdict of a guard, or of a panel of several, on one reply.

        Raises:
            GuardError: there is no guard of that name, or it cannot judge.
            ModelError: its model cannot be loaded, or does not fit into memory.
        """
        with self._lock:
            first, *others = [_CachedGuard(self._guard, name) for name in parse_guards(guard, self._settings)]
            panel = GuardPanel(first, tuple(others)) if others else first
            [verdict] = judge_replies(panel, [(prompt, reply)])
        return verdict

    def _model(self, ref: ModelReference) -> LoadedModel:
        from core.models.metadata import read_metadata

        key = str(ref)
        loaded = self._loaded.get(key)
        if not isinstance(loaded, LoadedModel):
            self._make_room(key, read_metadata(ref, self._settings))
            loaded = _load(ref, self._settings)
        self._mark_used(key, loaded)
        return loaded

    def _guard(self, name: GuardName) -> Guard:
        """Return a guard, with memory freed for its weights; it loads them when it first judges."""
        from core.guards.registry import load_guard, look_up

        key = f"guard {name.text}"
        guard = self._loaded.get(key)
        if guard is None or isinstance(guard, LoadedModel):
            if model := look_up(name, self._settings).metadata:
                self._make_room(key, model)
            guard = load_guard(name.text, self._settings)
        self._mark_used(key, guard)
        return guard

    def _mark_used(self, key: str, loaded: LoadedModel | Guard) -> None:
        self._loaded[key] = loaded
        self._loaded.move_to_end(key)

    def _make_room(self, key: str, model: ModelMetadata) -> None:
        """Unload models, the least recently used first, until `model` fits.

        Raises:
            ModelError: it does not fit even alone; then nothing is unloaded.
        """
        from core.models.memory import plan_for_chat

        while len(self._loaded) >= self._capacity:
            self._unload_oldest()
        busy = self._busy()
        plan = plan_for_chat(model, room_beside(busy))
        freed = sum(self._sizes.get(name, 0) for name in self._loaded)
        if not plan.fits() and not _with_more(plan, freed).fits():
            raise _no_memory(model, plan, busy)
        while not plan.fits():
            if not self._loaded:
                raise _no_memory(model, plan, busy)
            self._unload_oldest()
            plan = plan_for_chat(model, room_beside(busy))
        self._sizes[key] = plan.parts[0].size_bytes

    def _unload_oldest(self) -> None:
        name, _ = self._loaded.popitem(last=False)
        self._sizes.pop(name, None)
        gc.collect()  # some models refer to themselves


def _with_more(plan: MemoryPlan, freed: int) -> MemoryPlan:
    """The plan if `freed` bytes more were free where models compute."""
    free = plan.free
    if free.device is None:
        return replace(plan, free=free._replace(host=free.host + freed))
    return replace(plan, free=free._replace(device=free.device + freed))


def _no_memory(model: ModelMetadata, plan: MemoryPlan, busy: BusyNeeds | None) -> ModelError:
    from core.models.memory import gigabytes

    needed, left = plan.needed("host"), plan.free.host
    if plan.free.device is not None and plan.needed("device") > plan.free.device:
        needed, left = plan.needed("device"), plan.free.device
    short = f"{model.ref} needs {gigabytes(needed)}, and {gigabytes(max(0, left))} are free"
    if busy is None:
        return ModelError(f"{short}.", "Close other programs, or chat with a smaller model.", code="no-memory")
    hint = "Ask again when the run is finished, or stop it on the Merge tab."
    return ModelError(f"{short} beside the run {busy.run_id}.", hint, code="no-memory-beside-run")


def room_beside(busy: BusyNeeds | None) -> FreeMemory:
    """Return the free memory, less what the run in progress has reserved and not taken yet."""
    import torch

    from core.models.memory import FreeMemory, available_memory_bytes, free_memory

    room = free_memory(available_memory_bytes())
    if busy is None:
        return room
    host = room.host - max(0, busy.host - busy.taken)
    if room.device is None:
        return FreeMemory(host)
    taken = torch.cuda.mem_get_info()[1] - room.device - torch.cuda.memory_reserved()
    return FreeMemory(host, room.device - max(0, busy.device - taken))


def _load(ref: ModelReference, settings: Settings) -> LoadedModel:
    from core.models.loading import load_model, load_tokenizer
    from core.models.precision import choose_dtype, pick_device

    device = pick_device()
    dtype = choose_dtype("auto", settings, device).dtype
    return LoadedModel(load_model(ref, settings, dtype, device), load_tokenizer(ref, settings))
