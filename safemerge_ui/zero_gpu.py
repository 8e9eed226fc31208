"""Chat, guards and comparisons on ZeroGPU, which lends a Space a GPU for the time of single calls.

The package `spaces` is imported only on such a machine. It runs a decorated function in a process that is forked for
the call and has the GPU; the page's own process never has one. So models are loaded in that process, by a cache that
the page's process does not use, and are gone when the process ends. Files are downloaded before, without a GPU.

A run has no detached worker here: a comparison runs inside one call, and a merge is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.events import Failed
from core.contracts.verdicts import Verdict
from core.errors import ModelError, RunError, SafeMergeError
from core.guards.guard_names import PHRASES, parse_guards
from core.jobs.worker import new_run_id, run_worker
from core.models.references import ModelReference, parse_reference
from core.runs.folder import RunFolder
from core.settings import Settings
from safemerge_ui.errors import NoMergesHere
from safemerge_ui.model_cache import ModelCache

if TYPE_CHECKING:
    from core.models.chat_format import Conversation
    from core.models.streaming import Decoding

GpuDecorator = Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]
"""`spaces.GPU`: called with the duration in seconds, or with a function of the arguments that returns it."""

SMALL_BYTES = 10_000_000_000
"""Largest weights of a compared model: loading takes GPU time of the visitor's daily minutes."""
REPLY_S, JUDGE_S = 40, 30
"""GPU time of one reply and of one verdict, with loading."""
MODEL_S, PROMPT_S, LONGEST_S = 20, 0.4, 300
"""GPU time of a comparison: for each model, for each of its prompts and questions, and at most."""
ALL_PROMPTS = 168
"""Prompts and questions of a model without a limit: those of the demo."""
POLL_S = 0.2
_QUOTA = "The Hub counts GPU time per visitor and day. Sign in, ask for less, or use a Space with its own GPU."


class Refusal(NamedTuple):
    """An explained error as a value: an exception would lose its text on the way out of the other process."""

    message: str
    hint: str
    code: str


def gpu_decorator() -> GpuDecorator:
    """Return `spaces.GPU`; call it before torch is imported, on ZeroGPU only."""
    decorator: GpuDecorator = import_module("spaces").GPU
    return decorator


def run_seconds(spec: ComparisonSpec, _path: str = "") -> int:
    """GPU time to ask for a comparison, in seconds."""
    prompts = 3 * spec.evaluation.limit if spec.evaluation.limit else ALL_PROMPTS
    return min(LONGEST_S, round(len(spec.models) * (MODEL_S + PROMPT_S * prompts)))


class ZeroGpu:
    """What needs a GPU on this machine; the functions that `safemerge_ui.model_cache.ModelCache` has, and comparisons.

    Args:
        settings: where models and runs are stored.
        gpu: decorates the functions that need a GPU, before the server starts.
    """

    def __init__(self, settings: Settings, gpu: GpuDecorator) -> None:
        self._settings = settings
        cache = ModelCache(settings)
        self._stream = gpu(duration=REPLY_S)(_explaining_each(cache.stream))
        self._reply = gpu(duration=REPLY_S)(_explaining(cache.reply))
        self._judge = gpu(duration=JUDGE_S)(_explaining(cache.judge))
        self._compare = gpu(duration=run_seconds)(_explaining(_comparing(settings)))
        self._phrases = ModelCache(settings)

    def holds(self, _ref: ModelReference) -> bool:
        """Return False: a model is loaded in the process that has the GPU, at its call."""
        return False

    def stream(self, ref: ModelReference, conversation: Conversation, decoding: Decoding) -> Iterator[str]:
        """Yield the model's reply to a conversation so far, each time that it has grown."""
        self._fetch(ref)
        with _explained():
            for written in self._stream(ref, conversation, decoding):
                yield str(_or_raise(written))

    def reply(self, ref: ModelReference, prompt: str) -> str:
        """Return the model's reply to one prompt, decoded greedily."""
        self._fetch(ref)
        with _explained():
            return str(_or_raise(self._reply(ref, prompt)))

    def judge(self, guard: str, prompt: str, reply: str) -> Verdict:
        """Return the verdict of a guard; `phrases` needs no GPU."""
        if guard == PHRASES:
            return self._phrases.judge(guard, prompt, reply)
        self._fetch_guards(guard)
        with _explained():
            verdict: Verdict = _or_raise(self._judge(guard, prompt, reply))
        return verdict

    def start(self, spec: AnySpec) -> str:
        """Run a comparison inside one call; returns the run's id once its log has begun.

        Raises:
            NoMergesHere: the spec is that of a merge.
            SafeMergeError: a model is too large or unavailable, or no GPU time is left.
        """
        if not isinstance(spec, ComparisonSpec):
            raise NoMergesHere
        for compared in spec.models:
            self._fetch(parse_reference(compared.model, self._settings), SMALL_BYTES)
        self._fetch_guards(spec.guard)
        folder = RunFolder(self._settings.runs.resolve() / new_run_id())
        errors: list[SafeMergeError] = []
        arguments = (self._run, spec, folder, errors)
        thread = threading.Thread(target=copy_context().run, args=arguments, daemon=True, name=folder.run_id)
        thread.start()  # with the visitor's request, whose GPU time is used
        while thread.is_alive() and not folder.worker_path.exists():
            time.sleep(POLL_S)
        if errors:
            raise errors[0]
        return folder.run_id

    def _run(self, spec: ComparisonSpec, folder: RunFolder, errors: list[SafeMergeError]) -> None:
        """Run a comparison; its log is ended here if the GPU was taken away before its end."""
        try:
            with _explained():
                _or_raise(self._compare(spec, str(folder.path)))
        except SafeMergeError as error:
            errors.append(error)
            if folder.worker_path.exists():
                with suppress(RunError):
                    folder.append_terminal(Failed(message=error.message, hint=error.hint))

    def _fetch_guards(self, guard: str) -> None:
        for name in parse_guards(guard, self._settings):
            if name.model is not None:
                self._fetch(name.model, SMALL_BYTES)

    def _fetch(self, ref: ModelReference, most_bytes: int | None = None) -> None:
        """Download a model's files in this process, which has no GPU to pay for."""
        from core.models.loading import locate
        from core.models.metadata import read_metadata

        size_bytes = read_metadata(ref, self._settings).size_bytes if most_bytes is not None else 0
        if most_bytes is not None and size_bytes > most_bytes:
            raise ModelError(
                f"{ref} has {size_bytes / 1e9:.0f} GB of weights.",
                f"Compare models of at most {most_bytes / 1e9:.0f} GB here; larger ones need a Space with its own GPU.",
                code="too-large-for-zero-gpu",
            )
        locate(ref, self._settings)


def _comparing(settings: Settings) -> Callable[[ComparisonSpec, str], None]:
    def compare(spec: ComparisonSpec, path: str) -> None:
        run_worker(spec, settings, RunFolder(Path(path)))

    return compare


def _explaining(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with explained errors as values."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except SafeMergeError as error:
            return Refusal(error.message, error.hint, error.code)

    return call


def _explaining_each(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The generator function, with an explained error as its last value."""

    def stream(*arguments: Any) -> Iterator[Any]:
        try:
            yield from function(*arguments)
        except SafeMergeError as error:
            yield Refusal(error.message, error.hint, error.code)

    return stream


@contextmanager
def _explained() -> Iterator[None]:
    """Turn an error of `spaces`, such as that no GPU time is left, into one that the page explains."""
    try:
        yield
    except gr.Error as error:
        raise SafeMergeError(f"{error.title}: {error.message}", _QUOTA, code="zero-gpu") from error


def _or_raise(value: Any) -> Any:
    if isinstance(value, Refusal):
        raise SafeMergeError(value.message, value.hint, code=value.code)
    return value
