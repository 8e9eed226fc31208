"""Models and guards that the chat keeps in the app's process: loaded when first asked, the least recently used leaves.

A model is loaded only into memory that is free and that no run at work was planned to take; chat waits for the run
rather than break it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

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
    from core.models.memory import FreeMemory

CAPACITY = 4
"""Three models side by side, and a guard."""
MAX_NEW_TOKENS = 160


class LoadedModel(NamedTuple):
    """A model ready to generate, with its tokenizer."""

    model: Any
    tokenizer: Any


@dataclass(frozen=True)
class _OnShelf:
    """A guard that takes its place on the shelf when it judges, so that those of a panel come one after the other."""

    take: Callable[[GuardName], Guard]
    known: GuardName

    @property
    def name(self) -> str:
        return self.known.text

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        return self.take(self.known).judge(pairs)


class ModelCache:
    """A few loaded models, shared by all pages; one thread at a time loads or generates.

    Args:
        settings: where models are kept.
        capacity: most models in memory.
        busy: what the run at work on this machine needs.
    """

    def __init__(
        self, settings: Settings, capacity: int = CAPACITY, busy: Callable[[], BusyNeeds | None] = lambda: None
    ) -> None:
        self._settings = settings
        self._capacity = capacity
        self._busy = busy
        self._loaded: OrderedDict[str, LoadedModel | Guard] = OrderedDict()
        self._lock = threading.Lock()

    def holds(self, ref: ModelReference) -> bool:
        """True when a reply needs no loading first."""
        return str(ref) in self._loaded

    def reply(self, ref: ModelReference, prompt: str) -> str:
        """The model's greedy answer to one prompt.

        Raises:
            ModelError: the model cannot be loaded, or memory has no room for it.
        """
        from core.models.generation import generate

        with self._lock:
            loaded = self._take(ref)
            conversation = [{"role": "user", "content": prompt}]
            replies = dict(generate(loaded.model, loaded.tokenizer, [conversation], max_new_tokens=MAX_NEW_TOKENS))
        return replies[0]

    def judge(self, guard: str, prompt: str, reply: str) -> Verdict:
        """What a guard, or a panel of several, says of one reply.

        Raises:
            GuardError: the name is no guard's, or it cannot judge.
            ModelError: its model cannot be loaded, or memory has no room for it.
        """
        with self._lock:
            first, *others = [_OnShelf(self._guard, name) for name in parse_guards(guard, self._settings)]
            panel = GuardPanel(first, tuple(others)) if others else first
            [verdict] = judge_replies(panel, [(prompt, reply)])
        return verdict

    def _take(self, ref: ModelReference) -> LoadedModel:
        from core.models.metadata import read_metadata

        key = str(ref)
        loaded = self._loaded.get(key)
        if not isinstance(loaded, LoadedModel):
            self._make_room(read_metadata(ref, self._settings))
            loaded = _load(ref, self._settings)
        self._keep(key, loaded)
        return loaded

    def _guard(self, name: GuardName) -> Guard:
        """A guard with room for its weights, which it loads as soon as it judges."""
        from core.guards.registry import load_guard, look_up

        key = f"guard {name.text}"
        guard = self._loaded.get(key)
        if guard is None or isinstance(guard, LoadedModel):
            if model := look_up(name, self._settings).metadata:
                self._make_room(model)
            guard = load_guard(name.text, self._settings)
        self._keep(key, guard)
        return guard

    def _keep(self, key: str, loaded: LoadedModel | Guard) -> None:
        self._loaded[key] = loaded
        self._loaded.move_to_end(key)

    def _make_room(self, model: ModelMetadata) -> None:
        """Let models go, the least recently used first, until there is a place and room for one more."""
        from core.models.memory import gigabytes, plan_for_chat

        while len(self._loaded) >= self._capacity:
            self._loaded.popitem(last=False)
        busy = self._busy()
        while not (plan := plan_for_chat(model, room_beside(busy))).fits():
            if not self._loaded:
                needed, left = plan.needed("host"), plan.free.host
                if plan.free.device is not None and plan.needed("device") > plan.free.device:
                    needed, left = plan.needed("device"), plan.free.device
                short = f"{model.ref} takes {gigabytes(needed)}, and {gigabytes(max(0, left))} are left"
                if busy is None:
                    raise ModelError(f"{short}.", "Close other programs, or chat with a smaller model.")
                hint = "Chat waits for it: ask again when the run is over, or stop it on the Merge tab."
                raise ModelError(f"{short} beside the run {busy.run_id}, which is at work.", hint)
            self._loaded.popitem(last=False)


def room_beside(busy: BusyNeeds | None) -> FreeMemory:
    """What is free now, less what the run at work was planned to take and has not taken yet."""
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
