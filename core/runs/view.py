"""`fold(events) -> RunView`: the one way from a log to what a person sees.

Pure: the live page, a page reopened, the history, a replayed recording and the report all call it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from core.contracts.events import (
    Cancelled,
    CandidateMeasured,
    CandidateScored,
    CheckRow,
    DataReady,
    DisputedReply,
    Event,
    Exported,
    Failed,
    Finished,
    ModelMeasured,
    Phase,
    PhaseStarted,
    PreflightDone,
    Progress,
    Resumed,
    RunStarted,
    SampleSeen,
    Warned,
)
from core.contracts.optimizers import DEFAULT_OPTIMIZER, weighs_parents
from core.contracts.results import ModelResult, RunResult

Status = Literal["waiting", "running", "finished", "failed", "cancelled"]


@dataclass(frozen=True)
class RunView:
    """A run as of its last event. Lists keep the order of the log.

    Attributes:
        paused_s: how long nobody worked on it.
        early_ends: why searches needed fewer candidates than they might have tried.
        host_bytes: memory that it is planned to take at its peak; `device_bytes` is a GPU's.
    """

    status: Status = "waiting"
    spec: dict[str, Any] = field(default_factory=dict)
    started_at: float | None = None
    updated_at: float | None = None
    paused_s: float = 0.0
    phase: Phase | None = None
    phase_started_at: float | None = None
    progress: Progress | None = None
    checks: tuple[CheckRow, ...] = ()
    host_bytes: int = 0
    device_bytes: int = 0
    samples: tuple[SampleSeen, ...] = ()
    data: DataReady | None = None
    candidates: tuple[CandidateScored, ...] = ()
    measured: tuple[CandidateMeasured, ...] = ()
    models: tuple[ModelResult, ...] = ()
    disputed: tuple[DisputedReply, ...] = ()
    exported: Exported | None = None
    warnings: tuple[Warned, ...] = ()
    early_ends: tuple[str, ...] = ()
    result: RunResult | None = None
    message: str = ""
    hint: str = ""

    def elapsed_s(self, now: float | None = None) -> float | None:
        """Seconds of work until `now`, or until the last event where the run is over or no time is given."""
        if self.started_at is None or self.updated_at is None:
            return None
        until = self.updated_at if self.over or now is None else now
        return max(0.0, until - self.started_at - self.paused_s)

    @property
    def over(self) -> bool:
        """True once the run has ended, well or not."""
        return self.status in ("finished", "failed", "cancelled")

    @property
    def is_comparison(self) -> bool:
        """True where models are compared (`core.contracts.comparison_spec`) and none is merged."""
        return "models" in self.spec

    @property
    def main_search(self) -> str:
        """Name of the run's own search, and of the merge that comes of it: its optimiser's."""
        return str((self.spec.get("search") or {}).get("optimizer", DEFAULT_OPTIMIZER))

    def best(self, search: str = "") -> CandidateScored | None:
        """The best candidate so far by its `rank_key`, of the run's own search unless another is named.

        Those scored on a part of the pairs don't count. None for a search whose merge is none of its candidates
        (LM-Cocktail).
        """
        search = search or self.main_search
        of_search = [c for c in self.candidates if c.search == search and not weighs_parents(search)]
        return min((c for c in of_search if not (c.failure or c.partial)), key=lambda c: c.rank_key, default=None)


@dataclass
class _Lists:
    """Growing lists while folding; tuples are made once at the end."""

    samples: list[SampleSeen] = field(default_factory=list)
    candidates: list[CandidateScored] = field(default_factory=list)
    measured: list[CandidateMeasured] = field(default_factory=list)
    models: list[ModelResult] = field(default_factory=list)
    disputed: list[DisputedReply] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)


def fold(events: Iterable[Event]) -> RunView:
    """Fold a log into the view of its run."""
    view, lists = RunView(), _Lists()
    for event in events:
        view = replace(_step(view, lists, event), updated_at=event.at)
    return replace(
        view,
        samples=tuple(lists.samples),
        candidates=tuple(lists.candidates),
        measured=tuple(lists.measured),
        models=tuple(lists.models),
        disputed=tuple(lists.disputed),
        warnings=tuple(lists.warnings),
    )


def _step(view: RunView, lists: _Lists, event: Event) -> RunView:
    match event:
        case RunStarted():
            return replace(view, status="running", spec=event.spec, started_at=event.at)
        case Resumed():
            paused_s = view.paused_s + event.paused_s
            return replace(view, status="running", message="", hint="", progress=None, paused_s=paused_s)
        case PhaseStarted():
            return replace(view, phase=event.phase, phase_started_at=event.at, progress=None)
        case Progress():
            if event.ended_early:
                view = replace(view, early_ends=(*view.early_ends, event.message))
            return replace(view, progress=event)
        case PreflightDone():
            return replace(view, checks=event.rows, host_bytes=event.host_bytes, device_bytes=event.device_bytes)
        case SampleSeen():
            lists.samples.append(event)
        case DataReady():
            return replace(view, data=event)
        case CandidateScored():
            lists.candidates.append(event)
        case CandidateMeasured():
            lists.measured.append(event)
        case ModelMeasured():
            lists.models.append(event.result)
            lists.disputed.extend(event.disputed)
        case Exported():
            return replace(view, exported=event)
        case Warned():
            lists.warnings.append(event)
        case Finished():
            return replace(view, status="finished", result=event.result, progress=None)
        case Failed():
            return replace(view, status="failed", message=event.message, hint=event.hint)
        case Cancelled():
            return replace(view, status="cancelled", message=event.message)
    return view
