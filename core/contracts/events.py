"""The events of a run, as small frozen models joined in one discriminated union.

A run's `events.jsonl` holds one event a line. Live view, reload, history and report all fold this log
(`core.runs.view.fold`), so an event carries facts, never formatting. Losses are nats per token; times are seconds.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError

from core.contracts.reply_verdicts import DisputedReply, ReplyVerdict
from core.contracts.results import Documented, ModelResult, Rate, RunResult
from core.contracts.steady_time import steady_time

SCHEMA_VERSION = 1

Phase = Literal["preflight", "loading", "data", "parents", "search", "baselines", "evaluation", "export"]


class _Event(Documented):
    at: float = Field(default_factory=steady_time)
    """Seconds since the epoch."""


class RunStarted(_Event):
    """The first event of a run, with its spec."""

    kind: Literal["run_started"] = "run_started"
    schema_version: int = SCHEMA_VERSION
    """Version of the log's format."""
    spec: dict[str, Any]
    """The spec as a mapping."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """sha256 of each file that the spec names, by its path; a resumed run refuses other files. Empty in older logs."""


class Resumed(_Event):
    """A stopped run continues. Work that the log already holds is not repeated."""

    kind: Literal["resumed"] = "resumed"
    ended: str = ""
    """Kind of the end that this event supersedes, or the failure message of a worker that died without an end."""
    paused_s: float = 0.0
    """Seconds since the last work; they don't count as the run's time."""


class PhaseStarted(_Event):
    """A phase began."""

    kind: Literal["phase_started"] = "phase_started"
    phase: Phase
    """The phase."""
    total: int | None = None
    """Number of its units (questions, candidates, models); null where it is unknown."""


class Progress(_Event):
    """Progress within a phase."""

    kind: Literal["progress"] = "progress"
    phase: Phase
    """The phase."""
    done: int
    """Units that are done."""
    total: int
    """Units of the phase."""
    message: str = ""
    """What is being done."""
    seconds_left: float | None = None
    """Estimated time left in the phase."""
    ended_early: bool = False
    """A search needed no more than `done` candidates; `message` gives the reason."""
    tokens_scored: int = 0
    """Tokens of training pairs read for the search's candidates so far."""


class CheckRow(Documented):
    """One row of the preflight table."""

    model: str
    """The checked model, or `run`."""
    check: str
    """What was checked."""
    status: Literal["ok", "warning", "error"]
    """An error keeps the run from starting."""
    detail: str
    """The finding."""
    hint: str = ""
    """What to do."""


class PreflightDone(_Event):
    """The checks that need no weights are done."""

    kind: Literal["preflight_done"] = "preflight_done"
    rows: tuple[CheckRow, ...]
    """The table."""
    host_bytes: int = 0
    """Planned peak of host memory (of all memory where the processor is the device)."""
    device_bytes: int = 0
    """Planned peak of GPU memory."""


class PoolLoaded(_Event):
    """The pool's weights are in memory."""

    kind: Literal["pool_loaded"] = "pool_loaded"
    dtype: str
    """Number format of the live model, which all figures come from, as torch names it."""
    dtype_reason: str = ""
    """Why this number format was chosen; empty in older logs."""
    device: str
    """Device of the live model."""
    memory: str = "resident"
    """Where weights are stored between merges (`core.models.memory`); no figure depends on it."""


class SampleSeen(_Event):
    """A generated or imported question with its answer, kept for training or dropped with a reason."""

    kind: Literal["sample_seen"] = "sample_seen"
    dataset: Literal["safety", "domain", "benign"]
    """The training set."""
    question: str
    """The question."""
    answer: str = ""
    """The answer."""
    category: str = ""
    """The question's category."""
    answered_by: str = ""
    """Model whose reply was kept."""
    refused_by: tuple[str, ...] = ()
    """Models that refused (safety only)."""
    kept: bool
    """Whether the pair is used for training."""
    reason: str = ""
    """Why it was dropped; empty when it was kept."""
    source: str = ""
    """Origin of the question: a model, or a row of a dataset or file."""
    guard: str = ""
    """Guard that judged the replies."""
    verdicts: tuple[ReplyVerdict, ...] = ()
    """The guard's verdict on each model's reply (safety only)."""
    seed: int | None = None
    """Seed that the question was sampled with."""
    prompt_sha256: str = ""
    """First 16 digits of the hash of the prompt that the question was generated from."""
    part: int = 0
    """Index of the training set's source: 0 for the first, then those of `mix`."""

    @property
    def disputed(self) -> bool:
        """Whether guards disagree on a reply to the question."""
        return any(not verdict.agreed for verdict in self.verdicts)


class DataReady(_Event):
    """Both training sets are complete."""

    kind: Literal["data_ready"] = "data_ready"
    safety_kept: int
    """Safety pairs that are used."""
    safety_seen: int
    """Safety questions that were generated or read."""
    domain_kept: int
    """Domain pairs that are used."""
    domain_seen: int
    """Domain questions that were generated or read."""
    benign_kept: int = 0
    """Harmless look-alikes that are used."""
    benign_seen: int = 0
    """Harmless look-alikes that were generated or read."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Number of dropped questions by reason."""


class ImportanceScored(_Event):
    """How important each weight is to the training pairs was computed, for a method that needs it."""

    kind: Literal["importance_scored"] = "importance_scored"
    method: str
    """The merge method."""
    sha256: str
    """Hash of the scores; a resumed run computes them again and refuses others."""
    pairs: int
    """Backward passes, one for each training pair and model."""
    seconds: float
    """Time of computing them."""


class CandidateScored(_Event):
    """One merge of a search, scored on the training pairs without generating text."""

    kind: Literal["candidate_scored"] = "candidate_scored"
    search: str
    """The search: the optimizer's name, or a baseline's."""
    candidate: int
    """Number within the search, from 0."""
    generation: int
    """Number of the generation (candidates that the optimizer asked for together)."""
    recipe: dict[str, Any]
    """The merge as a mapping (`core.merging.recipes.Recipe`)."""
    objective: float
    """The minimized value."""
    ce_safety: float | None
    """Safety loss; null where the safety data is left out or scoring failed."""
    ce_expert: float | None
    """Domain loss; null where scoring failed."""
    estimated_alignment: float | None = None
    """Share of safety pairs whose refusal the merge would begin greedily (estimate)."""
    estimated_accuracy: float | None = None
    """Share of domain pairs whose answer the merge would give greedily (estimate)."""
    seconds: float
    """Time of merging and scoring."""
    failure: str = ""
    """Why scoring failed; losses are then null and `objective` is a finite penalty."""
    violation: float = 0.0
    """Nats of the safety loss above the search's limit; candidates with 0 come first."""
    expert_losses: dict[str, float] = Field(default_factory=dict)
    """Mean loss on each expert's own domain pairs, where there are several experts."""
    samples: int | None = None
    """Pairs that the losses rest on, in logs of earlier versions with racing; otherwise null: all pairs are scored."""
    all_samples: int | None = None
    """Pairs in all, in such logs. With fewer `samples` the losses are estimates, and the view leaves them out."""
    tokens: int = 0
    """Tokens of training pairs that were read for it."""
    ce_benign: float | None = None
    """Loss on harmless look-alikes with helpful replies; null without such pairs."""
    held_out: float | None = None
    """The minimized value on the pairs that a gradient search holds out; `objective` then rests on the others."""

    @property
    def partial(self) -> bool:
        """Whether the losses are estimates from a part of the pairs."""
        return self.samples is not None and self.samples != self.all_samples

    @property
    def rank_key(self) -> tuple[float, float]:
        """Sort key, lower is better: first the violation of the safety limit, then the objective."""
        return self.violation, self.objective if self.held_out is None else self.held_out


class GradientStep(_Event):
    """A gradient search differentiated the losses of training pairs."""

    kind: Literal["gradient_step"] = "gradient_step"
    search: str
    """The search."""
    step: int
    """Number within the search, from 0."""
    batch: int | None
    """The mini-batch; null = all training pairs."""
    objective: float | None
    """The weighted loss on these pairs; null where the step was rejected."""
    losses: dict[str, float] = Field(default_factory=dict)
    """Loss by kind of pair: `safety`, `expert`, `benign`."""
    gradient: tuple[float, ...] = ()
    """Derivative by each searched parameter, over its range."""
    seconds: float
    """Time of merging and differentiating."""
    failure: str = ""
    """Why the step was rejected."""
    tokens: int = 0
    """Tokens of training pairs that were read for it."""


class CandidateMeasured(_Event):
    """The best candidate of a generation, measured on the probe: replies judged by the guard, questions answered."""

    kind: Literal["candidate_measured"] = "candidate_measured"
    search: str
    """The search."""
    candidate: int
    """Number within the search, from 0."""
    generation: int
    """Number of the generation."""
    alignment: Rate | None
    """Share of probe prompts answered safely; null where it was not measured."""
    accuracy: Rate | None
    """Share of probe questions answered correctly; null where it was not measured."""
    over_refusal: Rate | None = None
    """Share of harmless look-alikes of the probe refused; null where it was not measured."""


class ModelMeasured(_Event):
    """A parent, baseline or merge was measured on the held-out test prompts."""

    kind: Literal["model_measured"] = "model_measured"
    result: ModelResult
    """The figures."""
    disputed: tuple[DisputedReply, ...] = ()
    """Replies on which guards disagree, where several judge."""


class Exported(_Event):
    """The merged model was saved; the hash of the saved weights equals that of the scored ones."""

    kind: Literal["exported"] = "exported"
    path: str
    """Folder of the saved model."""
    sha256: str
    """Hash of its weights."""


class Warned(_Event):
    """A warning that does not stop the run."""

    kind: Literal["warned"] = "warned"
    message: str
    """What was found."""
    hint: str = ""
    """What to do."""


class Finished(_Event):
    """The run ended with a result."""

    kind: Literal["finished"] = "finished"
    result: RunResult
    """What `result.json` holds."""


class Failed(_Event):
    """The run ended with an error."""

    kind: Literal["failed"] = "failed"
    message: str
    """What went wrong."""
    hint: str = ""
    """What to do."""
    traceback: str = ""
    """Only for a defect of SafeMerge itself."""


class Cancelled(_Event):
    """A person stopped the run."""

    kind: Literal["cancelled"] = "cancelled"
    message: str = "Stopped."
    """Who or what stopped it."""


Event = Annotated[
    RunStarted
    | Resumed
    | PhaseStarted
    | Progress
    | PreflightDone
    | PoolLoaded
    | SampleSeen
    | DataReady
    | ImportanceScored
    | CandidateScored
    | GradientStep
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
_KINDS = frozenset(get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(get_args(Event)[0]))


def parse_event(line: str | bytes) -> Event:
    """Read one line of `events.jsonl`."""
    return _ADAPTER.validate_json(line)


def is_damaged(line: str | bytes) -> bool:
    """Whether a line of a log is no event of this version, nor looks like one of another version."""
    try:
        parse_event(line)
    except ValidationError:
        pass
    else:
        return False
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return True
    kind = data.get("kind") if isinstance(data, dict) else None
    return not isinstance(kind, str) or kind in _KINDS


def events_schema() -> dict[str, Any]:
    """The JSON schema of an event."""
    return _ADAPTER.json_schema(mode="serialization")


def is_terminal(event: Event) -> bool:
    """Whether the event ends a run."""
    return isinstance(event, Finished | Failed | Cancelled)
