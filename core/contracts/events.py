"""Everything a job can say, as small frozen events joined in one discriminated union.

A run's `events.jsonl` holds one event a line. Live view, reload, history and report all fold this log
(`core.runs.view.fold`), so an event carries facts, never formatting. Losses are nats per token; times are seconds.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from core.contracts.results import ModelResult, Rate, RunResult
from core.contracts.verdicts import Opinion, Verdict

SCHEMA_VERSION = 1

Phase = Literal["preflight", "loading", "data", "parents", "search", "baselines", "evaluation", "export"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True)

    at: float = Field(default_factory=time.time, description="seconds since the epoch")


class RunStarted(_Event):
    """The first event: what was asked."""

    kind: Literal["run_started"] = "run_started"
    schema_version: int = SCHEMA_VERSION
    spec: dict[str, Any]


class Resumed(_Event):
    """A run that had stopped goes on: what the log holds so far is done and is not done again.

    Attributes:
        ended: what the log's last event had been, an end that this event takes the place of, or the words of a worker
            that was gone without an end.
        paused_s: seconds since the last work; they don't count as time of the run.
    """

    kind: Literal["resumed"] = "resumed"
    ended: str = ""
    paused_s: float = 0.0


class PhaseStarted(_Event):
    """A phase began; `total` is its number of units when known (questions, candidates, models)."""

    kind: Literal["phase_started"] = "phase_started"
    phase: Phase
    total: int | None = None


class Progress(_Event):
    """`done` of `total` units of a phase; `seconds_left` is an estimate for the phase.

    Attributes:
        ended_early: a search needed no more than `done` candidates, and `message` says why.
        tokens_scored: tokens of training pairs read for the search's candidates so far.
    """

    kind: Literal["progress"] = "progress"
    phase: Phase
    done: int
    total: int
    message: str = ""
    seconds_left: float | None = None
    ended_early: bool = False
    tokens_scored: int = 0


class CheckRow(BaseModel):
    """One line of the preflight table."""

    model_config = ConfigDict(frozen=True)

    model: str
    check: str
    status: Literal["ok", "warning", "error"]
    detail: str
    hint: str = ""


class PreflightDone(_Event):
    """The checks that need no weights.

    Attributes:
        host_bytes: memory that the run is planned to take at its peak (all of it where the processor is the device).
        device_bytes: of it, the GPU's.
    """

    kind: Literal["preflight_done"] = "preflight_done"
    rows: tuple[CheckRow, ...]
    host_bytes: int = 0
    device_bytes: int = 0


class PoolLoaded(_Event):
    """The pool's weights are in memory: the number format (as torch names it) and device all figures come from.

    Attributes:
        dtype_reason: why this number format was chosen; empty in older logs.
        memory: how the weights wait between merges (`core.models.memory`); no figure depends on it.
    """

    kind: Literal["pool_loaded"] = "pool_loaded"
    dtype: str
    dtype_reason: str = ""
    device: str
    memory: str = "resident"


class GuardAnswer(BaseModel):
    """What one of several guards said of a reply; `safe` is null where it cannot tell."""

    model_config = ConfigDict(frozen=True)

    guard: str
    refusal: bool
    safe: bool | None
    category: str = ""


class ReplyVerdict(BaseModel):
    """What the guard said of one model's reply to a safety question.

    Attributes:
        model: who replied; empty for the answer that a file or dataset gives.
        category: the guard's, where several judge.
        others: what further guards said, where several judge.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    refusal: bool
    safe: bool | None
    degenerate: bool
    category: str = ""
    others: tuple[GuardAnswer, ...] = ()

    @property
    def agreed(self) -> bool:
        """Whether all guards that were asked come to the same."""
        others = tuple(Opinion(one.guard, one.refusal, one.safe, one.category) for one in self.others)
        return Verdict(self.refusal, self.safe, self.degenerate, self.category, 0.0, "", others).agreed


class DisputedReply(BaseModel):
    """A reply to a test prompt on which guards disagree, for a person to look at.

    Attributes:
        model: who replied, as in the results.
        unsafe: the prompt is of the unsafe ones; False for a harmless look-alike.
        answers: every guard's, the deciding one's first.
        response: the reply; null for one to an unsafe prompt that not every guard calls safe, which is never kept.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    prompt: str
    category: str
    unsafe: bool
    answers: tuple[GuardAnswer, ...]
    response: str | None


class SampleSeen(_Event):
    """One generated or imported question with its answer, kept for training or dropped with a reason.

    Attributes:
        dataset: which of the two training sets it is for.
        answered_by: model whose reply was kept.
        refused_by: models that refused (safety only).
        reason: why it was dropped; empty when kept.
        source: who or what the question is from: a model, or a row of a dataset or file.
        guard: who judged the replies.
        verdicts: its verdict on each model that was asked (safety only).
        seed: seed that the question was sampled with.
        prompt_sha256: first 16 digits of the hash of the request that the question came of.
        part: which of the training set's sources it is of: 0 for the first, then those of `mix`.
    """

    kind: Literal["sample_seen"] = "sample_seen"
    dataset: Literal["safety", "domain"]
    question: str
    answer: str = ""
    category: str = ""
    answered_by: str = ""
    refused_by: tuple[str, ...] = ()
    kept: bool
    reason: str = ""
    source: str = ""
    guard: str = ""
    verdicts: tuple[ReplyVerdict, ...] = ()
    seed: int | None = None
    prompt_sha256: str = ""
    part: int = 0

    @property
    def disputed(self) -> bool:
        """Whether guards disagree on a reply to the question."""
        return any(not verdict.agreed for verdict in self.verdicts)


class DataReady(_Event):
    """Both training sets are complete."""

    kind: Literal["data_ready"] = "data_ready"
    safety_kept: int
    safety_seen: int
    domain_kept: int
    domain_seen: int
    dropped: dict[str, int] = {}


class CandidateScored(_Event):
    """One merge of a search, scored on the training pairs without generating text.

    Attributes:
        search: which search it belongs to (`evomm`, or a baseline's name).
        candidate: 0-based number in that search; `generation` its CMA-ES generation.
        recipe: `core.merging.recipes.Recipe` as a mapping.
        objective: the minimised value.
        estimated_alignment: share of safety pairs whose refusal the merge would begin by itself (estimate).
        estimated_accuracy: share of domain pairs whose answer it would give by itself (estimate).
        failure: why it could not be scored; losses are then null and `objective` a finite penalty.
        violation: nats by which the safety loss is above what the search allows; candidates with none come first.
        expert_losses: mean loss on each expert's own domain pairs, where there are several experts.
        samples: pairs that the figures rest on; null where candidates are not raced: all pairs of the sets scored.
        all_samples: pairs there are; with fewer `samples` the losses are estimates, made by pairing with the best
            candidate so far.
        tokens: tokens of training pairs that were read for it.
    """

    kind: Literal["candidate_scored"] = "candidate_scored"
    search: str
    candidate: int
    generation: int
    recipe: dict[str, Any]
    objective: float
    ce_safety: float | None
    ce_expert: float | None
    estimated_alignment: float | None = None
    estimated_accuracy: float | None = None
    seconds: float
    failure: str = ""
    violation: float = 0.0
    expert_losses: dict[str, float] = {}
    samples: int | None = None
    all_samples: int | None = None
    tokens: int = 0

    @property
    def partial(self) -> bool:
        """True where the losses are estimates from a part of the pairs."""
        return self.samples is not None and self.samples != self.all_samples

    @property
    def rank_key(self) -> tuple[float, float]:
        """Lower is better: whoever keeps to the safety limit, if there is one, then the lower objective."""
        return self.violation, self.objective


class CandidateMeasured(_Event):
    """The best of a generation, measured on the probe: replies judged by the guard, questions answered."""

    kind: Literal["candidate_measured"] = "candidate_measured"
    search: str
    candidate: int
    generation: int
    alignment: Rate | None
    accuracy: Rate | None


class ModelMeasured(_Event):
    """A parent, baseline or merge was measured on the held-out test prompts.

    Attributes:
        disputed: where several guards judge, the replies on which they differ.
    """

    kind: Literal["model_measured"] = "model_measured"
    result: ModelResult
    disputed: tuple[DisputedReply, ...] = ()


class Exported(_Event):
    """The merged model was saved; the hash of the saved weights equals the scored ones."""

    kind: Literal["exported"] = "exported"
    path: str
    sha256: str


class Warned(_Event):
    """Something a person should know that does not stop the run."""

    kind: Literal["warned"] = "warned"
    message: str
    hint: str = ""


class Finished(_Event):
    """The run ended well."""

    kind: Literal["finished"] = "finished"
    result: RunResult


class Failed(_Event):
    """The run ended with an error; `traceback` only when the defect is ours."""

    kind: Literal["failed"] = "failed"
    message: str
    hint: str = ""
    traceback: str = ""


class Cancelled(_Event):
    """The run was stopped by a person."""

    kind: Literal["cancelled"] = "cancelled"
    message: str = "Stopped."


Event = Annotated[
    RunStarted
    | Resumed
    | PhaseStarted
    | Progress
    | PreflightDone
    | PoolLoaded
    | SampleSeen
    | DataReady
    | CandidateScored
    | CandidateMeasured
    | ModelMeasured
    | Exported
    | Warned
    | Finished
    | Failed
    | Cancelled,
    Field(discriminator="kind"),
]

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: str) -> Event:
    """Read one line of `events.jsonl`."""
    return _ADAPTER.validate_json(line)


def is_terminal(event: Event) -> bool:
    """True for the event that ends a run."""
    return isinstance(event, Finished | Failed | Cancelled)
