"""The job that compares models: each is loaded in turn, put the same prompts and questions, and makes way for the next.

Evaluate and Audit run it. It yields the same events as the job that merges (`core.runs.job`), and is resumed like it:
models that were measured before are taken from the log and not even loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import torch

from core.comparison_spec import ComparedModel, ComparisonSpec
from core.errors import ModelError, RunCancelled, SafeMergeError
from core.evaluation.measuring import Measured, Measurer, TestSet, read_compared
from core.events import (
    Event,
    Finished,
    ModelMeasured,
    PhaseStarted,
    PoolLoaded,
    PreflightDone,
    Progress,
    RunStarted,
    Warned,
)
from core.guards.protocol import Guard
from core.guards.registry import load_guard
from core.merging.fingerprint import sha256_of_model
from core.models.comparison_check import examine_comparison
from core.models.fitting import free_cached, naming_out_of_memory
from core.models.loading import load_model, load_tokenizer
from core.models.precision import fast_dtype, pick_device
from core.models.preflight import refuse_blocking
from core.models.references import parse_reference
from core.results import ModelResult, RunResult
from core.runs.folder import RunFolder
from core.runs.past import Past, continue_log
from core.runs.process import peak_memory_bytes
from core.settings import Settings


def run_comparison(
    spec: ComparisonSpec,
    settings: Settings,
    folder: RunFolder,
    should_stop: Callable[[], bool],
    past: Past | None = None,
) -> Iterator[Event]:
    """Measure every model of `spec`; replies go into `folder`.

    Args:
        spec: what to compare.
        settings: of this machine.
        folder: of the run.
        should_stop: asked before each model.
        past: what the run has done before.

    Yields:
        Events from `RunStarted` to `Finished`, without those that `past` holds.

    Raises:
        SafeMergeError: something a person can mend (a model, the prompts, the disk).
        RunCancelled: `should_stop` said so.
    """
    past = past or Past()
    yield from continue_log(_Comparison(spec, settings, folder, should_stop, past).run(), past)


@dataclass
class _Comparison:
    spec: ComparisonSpec
    settings: Settings
    folder: RunFolder
    should_stop: Callable[[], bool]
    past: Past
    results: list[ModelResult] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def run(self) -> Iterator[Event]:
        yield RunStarted(spec=self.spec.model_dump(mode="json"))
        left_out = yield from self._preflight()
        tests, guard = read_compared(self.spec.evaluation), load_guard(self.spec.guard, self.settings)
        device = pick_device()
        dtype = getattr(torch, self.past.dtype) if self.past.dtype else fast_dtype(device)
        yield PoolLoaded(dtype=str(dtype).removeprefix("torch."), device=device.type)
        yield PhaseStarted(phase="evaluation", total=len(self.spec.models))
        measuring = time.monotonic()
        for done, compared in enumerate(self.spec.models):
            if self.should_stop():
                raise RunCancelled
            yield self._progress(done, compared, time.monotonic() - measuring)
            yield from self._one(compared, left_out.get(compared.model, ""), tests, guard, dtype)
        self._refuse_without_parents()
        yield Progress(phase="evaluation", done=len(self.spec.models), total=len(self.spec.models))
        yield Finished(result=self._result())

    def _preflight(self) -> Generator[Event, None, dict[str, str]]:
        yield PhaseStarted(phase="preflight")
        found = examine_comparison(self.spec, self.settings)
        yield PreflightDone(
            rows=tuple(found.rows), host_bytes=found.needed("host"), device_bytes=found.needed("device")
        )
        refuse_blocking(found.rows)
        parents = [compared.model for compared in self.spec.models if compared.role == "parent"]
        if parents and set(parents) == found.left_out.keys():
            raise _no_parents(found.left_out[parents[0]])
        return found.left_out

    def _progress(self, done: int, compared: ComparedModel, seconds: float) -> Progress:
        """What comes next; the time left follows from the models that were measured in this go."""
        total = len(self.spec.models)
        before = sum(self.past.model(one.model, one.role) is not None for one in self.spec.models)
        new = done - before
        left = seconds / new * (total - done) if new > 0 else None
        message = f"measuring {compared.model}"
        return Progress(phase="evaluation", done=done, total=total, message=message, seconds_left=left)

    def _one(
        self, compared: ComparedModel, problem: str, tests: TestSet, guard: Guard, dtype: torch.dtype
    ) -> Iterator[Event]:
        """Measure a model, unless the log has it; a parent that cannot be loaded is told and left out."""
        result = self.past.model(compared.model, compared.role)
        if result is None and not problem:
            free_cached()
            try:
                measured = self._measure(compared, tests, guard, dtype)
            except SafeMergeError as error:
                if compared.role != "parent":
                    raise
                problem = error.message
            else:
                result = measured.result
                self.folder.write_replies(compared.model, measured.replies)
        if result is None:
            result = ModelResult(name=compared.model, role=compared.role, not_measured=problem)
        if result.not_measured:
            hint = "The others are measured without it."
            yield Warned(message=f"{compared.model} is not measured: {result.not_measured}", hint=hint)
        self.results.append(result)
        yield ModelMeasured(result=result)

    def _measure(self, compared: ComparedModel, tests: TestSet, guard: Guard, dtype: torch.dtype) -> Measured:
        """Load and measure a model, which is gone from memory when this is done."""
        reference, wanted = parse_reference(compared.model, self.settings), self.spec.evaluation
        with naming_out_of_memory(f"Measuring {compared.model}"):
            model = load_model(reference, self.settings, dtype, pick_device())
            tokenizer = load_tokenizer(reference, self.settings)
            measurer = Measurer(model, tokenizer, guard, tests, wanted.limit, wanted.reply_tokens)
            return measurer.measure(compared.model, compared.role, sha256=sha256_of_model(model))

    def _refuse_without_parents(self) -> None:
        parents = [result for result in self.results if result.role == "parent"]
        if parents and all(parent.not_measured for parent in parents):
            raise _no_parents(parents[0].not_measured)

    def _result(self) -> RunResult:
        return RunResult(
            spec=self.spec.model_dump(mode="json"),
            seconds=self.past.seconds + time.monotonic() - self.started,
            peak_memory_bytes=peak_memory_bytes(),
            models=tuple(self.results),
        )


def _no_parents(first: str) -> ModelError:
    return ModelError(f"None of the parents can be measured ({first}).", "Name parents that can be had with --parents.")
