"""The job that compares models: each is loaded, gets the same prompts and questions, and is unloaded before the next.

Evaluate and Audit run it. It yields the same events as the merge job (`core.jobs.merge_job`) and is resumed like it:
results of models that were measured before are taken from the log, and those models are not loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import torch

from core.contracts.comparison_spec import ComparedModel, ComparisonSpec
from core.contracts.events import (
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
from core.contracts.reply_verdicts import DisputedReply
from core.contracts.results import ModelResult, RunResult
from core.errors import ModelError, RunCancelled, SafeMergeError
from core.evaluation.measurement import Measured, Measurer, TestSet, read_tests
from core.guards.protocol import Guard
from core.guards.registry import load_guard
from core.jobs.run_warnings import broken_merge_warnings, swapped_prompts_warnings
from core.models.fingerprint import start_hash
from core.models.loading import load_model, load_tokenizer
from core.models.out_of_memory import free_cached, translate_oom
from core.models.precision import choose_dtype, pick_device
from core.models.references import parse_reference
from core.preflight.check_rows import refuse_blocking
from core.preflight.comparison_check import examine_comparison
from core.runs.folder import RunFolder
from core.runs.input_files import hash_inputs
from core.runs.process import peak_memory_bytes
from core.runs.replay import Replay, continue_log
from core.settings import Settings


def run_comparison(
    spec: ComparisonSpec,
    settings: Settings,
    folder: RunFolder,
    should_stop: Callable[[], bool],
    replay: Replay | None = None,
) -> Iterator[Event]:
    """Measure every model of `spec` and save its replies into `folder`.

    Args:
        spec: what to compare.
        settings: of this machine.
        folder: of the run.
        should_stop: checked before each model.
        replay: what the run has done before.

    Yields:
        Events from `RunStarted` to `Finished`, without those that `replay` holds.

    Raises:
        SafeMergeError: something a person can fix (a model, the prompts, the disk).
        RunCancelled: `should_stop` returned True.
    """
    replay = replay or Replay()
    yield from continue_log(_Comparison(spec, settings, folder, should_stop, replay).run(), replay)


@dataclass
class _Comparison:
    spec: ComparisonSpec
    settings: Settings
    folder: RunFolder
    should_stop: Callable[[], bool]
    replay: Replay
    results: list[ModelResult] = field(default_factory=list)
    disputed: list[DisputedReply] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def run(self) -> Iterator[Event]:
        yield RunStarted(spec=self.spec.model_dump(mode="json"), inputs=hash_inputs(self.spec))
        unavailable = yield from self._preflight()
        tests = read_tests(self.spec.evaluation, self.settings)
        guard = load_guard(self.spec.guard, self.settings, self.spec.dtype)
        device = pick_device()
        chosen = choose_dtype(self.spec.dtype, self.settings, device, logged=self.replay.dtype)
        yield PoolLoaded(dtype=chosen.name, dtype_reason=chosen.reason, device=device.type)
        yield PhaseStarted(phase="evaluation", total=len(self.spec.models))
        measuring = time.monotonic()
        for done, compared in enumerate(self.spec.models):
            if self.should_stop():
                raise RunCancelled
            yield self._progress(done, compared, time.monotonic() - measuring)
            problem = unavailable.get(compared.model, "")
            yield from self._measure_unless_known(compared, problem, tests, guard, chosen.dtype)
        self._refuse_without_parents()
        yield from self._warn_about_figures()
        yield Progress(phase="evaluation", done=len(self.spec.models), total=len(self.spec.models))
        yield Finished(result=self._result())

    def _preflight(self) -> Generator[Event, None, dict[str, str]]:
        """Check the spec; returns the parents that are unavailable, each with the reason."""
        yield PhaseStarted(phase="preflight")
        checks = examine_comparison(self.spec, self.settings)
        yield PreflightDone(
            rows=tuple(checks.rows), host_bytes=checks.needed("host"), device_bytes=checks.needed("device")
        )
        refuse_blocking(checks.rows)
        parents = [compared.model for compared in self.spec.models if compared.role == "parent"]
        if parents and set(parents) == checks.left_out.keys():
            raise _no_parents(checks.left_out[parents[0]])
        return checks.left_out

    def _progress(self, done: int, compared: ComparedModel, seconds: float) -> Progress:
        """Which model is next, and the time left, estimated from the models measured since this process started."""
        total = len(self.spec.models)
        before = sum(self.replay.model(model.model, model.role) is not None for model in self.spec.models)
        new = done - before
        left = seconds / new * (total - done) if new > 0 else None
        message = f"measuring {compared.model}"
        return Progress(phase="evaluation", done=done, total=total, message=message, seconds_left=left)

    def _measure_unless_known(
        self, compared: ComparedModel, problem: str, tests: TestSet, guard: Guard, dtype: torch.dtype
    ) -> Iterator[Event]:
        """Measure a model unless the log has its result; a parent that cannot be loaded is reported and skipped."""
        measured = self.replay.model(compared.model, compared.role)
        if measured is None and not problem:
            free_cached()
            try:
                new = self._measure(compared, tests, guard, dtype)
            except SafeMergeError as error:
                if compared.role != "parent":
                    raise
                problem = error.message
            else:
                measured = ModelMeasured(result=new.result, disputed=new.disputed)
                self.folder.write_replies(compared.model, new.replies)
        if measured is None:
            measured = ModelMeasured(result=ModelResult(name=compared.model, role=compared.role, not_measured=problem))
        if reason := measured.result.not_measured:
            hint = "The other models are measured."
            yield Warned(message=f"{compared.model} is not measured: {reason}", hint=hint)
        self.results.append(measured.result)
        self.disputed += measured.disputed
        if self.disputed:
            self.folder.write_disputed(self.disputed)
        yield measured

    def _measure(self, compared: ComparedModel, tests: TestSet, guard: Guard, dtype: torch.dtype) -> Measured:
        """Load and measure a model, and unload it again."""
        reference, evaluation = parse_reference(compared.model, self.settings), self.spec.evaluation
        with translate_oom(f"Measuring {compared.model}"):
            model = load_model(reference, self.settings, dtype, pick_device())
            tokenizer = load_tokenizer(reference, self.settings)
            measurer = Measurer(model, tokenizer, guard, tests, evaluation.limit, evaluation.reply_tokens)
            weights = start_hash(model)
            measured = measurer.measure(compared.model, compared.role)
            return measured._replace(result=measured.result.model_copy(update={"sha256": weights().sha256}))

    def _refuse_without_parents(self) -> None:
        parents = [result for result in self.results if result.role == "parent"]
        if parents and all(parent.not_measured for parent in parents):
            raise _no_parents(parents[0].not_measured)

    def _warn_about_figures(self) -> Iterator[Warned]:
        """Warnings when prompts look swapped, or when a merge writes broken text and so only seems aligned."""
        others = [result for result in self.results if result.role != "merged" and not result.not_measured]
        yield from swapped_prompts_warnings(others, self.spec.evaluation)
        for merge in (result for result in self.results if result.role == "merged"):
            yield from broken_merge_warnings(merge, others)

    def _result(self) -> RunResult:
        return RunResult(
            spec=self.spec.model_dump(mode="json"),
            seconds=self.replay.seconds + time.monotonic() - self.started,
            peak_memory_bytes=peak_memory_bytes(),
            models=tuple(self.results),
        )


def _no_parents(first: str) -> ModelError:
    return ModelError(
        f"None of the parents can be measured ({first}).", "Name available parents with --parents.", code="no-parents"
    )
