"""`fold(events) -> RunView`: the only way from a log to what a person sees.

The function is pure. The live page, a reopened page, the list of runs and the report all call it. A reader that follows
a growing log passes the view of the events so far and folds only the new events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from core.contracts.events import (
    Cancelled,
    CandidateMeasured,
    CandidateScored,
    CheckRow,
    DataReady,
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
from core.contracts.reply_verdicts import DisputedReply
from core.contracts.results import ModelResult, RunResult

ESTIMATES = "Candidates that racing scored on a part of the pairs are not shown, because their losses are estimates."
Status = Literal["waiting", "running", "finished", "failed", "cancelled"]


@dataclass(frozen=True)
class RunView:
    """A run as of its last event. Lists are in the order of the log.

    Attributes:
        paused_s: seconds in which no worker was at work.
        early_ends: why searches ended before they had tried all planned candidates.
        host_bytes: planned peak of main memory; `device_bytes` is that of a GPU.
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
        """Seconds of work until `now`, or until the last event if the run is over or no time is given."""
        if self.started_at is None or self.updated_at is None:
            return None
        until = self.updated_at if self.over or now is None else now
        return max(0.0, until - self.started_at - self.paused_s)

    @property
    def over(self) -> bool:
        """True once the run has finished, failed or was cancelled."""
        return self.status in ("finished", "failed", "cancelled")

    @property
    def is_comparison(self) -> bool:
        """True when the run compares models (`core.contracts.comparison_spec`) instead of merging them."""
        return "models" in self.spec

    @property
    def main_search(self) -> str:
        """Name of the run's own search and of its merge: the name of the optimizer."""
        return str((self.spec.get("search") or {}).get("optimizer", DEFAULT_OPTIMIZER))

    def best(self, search: str = "") -> CandidateScored | None:
        """The best candidate so far by its `rank_key`, of the run's own search unless another one is named.

        None for a search whose merge is none of its candidates (LM-Cocktail).
        """
        search = search or self.main_search
        of_search = [c for c in self.candidates if c.search == search and not weighs_parents(search)]
        return min((c for c in of_search if not c.failure), key=lambda c: c.rank_key, default=None)


def fold(events: Iterable[Event], view: RunView | None = None) -> RunView:
    """Fold events into the view of their run.

    Args:
        events: all events of a log, or those that follow the ones in `view`.
        view: the view of all earlier events; None = there are none. It is not changed.

    Returns:
        The same view however the log is divided: `fold(b, fold(a)) == fold(a + b)`. The cost depends on the number of
        new events, apart from one copy of each list that grows.
    """
    view = view or RunView()
    changes: dict[str, Any] = {}
    added = _Added()
    for event in events:
        _collect(event, view, changes, added)
        changes["updated_at"] = event.at
    return replace(view, **changes, **added.joined(view)) if changes else view


@dataclass
class _Added:
    """What a call of `fold` appends to the view's lists."""

    samples: list[SampleSeen] = field(default_factory=list)
    candidates: list[CandidateScored] = field(default_factory=list)
    measured: list[CandidateMeasured] = field(default_factory=list)
    models: list[ModelResult] = field(default_factory=list)
    disputed: list[DisputedReply] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    early_ends: list[str] = field(default_factory=list)

    def joined(self, view: RunView) -> Mapping[str, Any]:
        """The view's lists that grew, each with what was added."""
        return {name: (*getattr(view, name), *new) for name, new in vars(self).items() if new}


def _collect(event: Event, view: RunView, changes: dict[str, Any], added: _Added) -> None:
    """Note in `changes` and `added` what an event changes in the view."""
    match event:
        case SampleSeen():
            added.samples.append(event)
        case CandidateScored(partial=True):
            _warn_of_estimates(event, view, added)
        case CandidateScored():
            added.candidates.append(event)
        case Progress():
            changes["progress"] = event
            if event.ended_early:
                added.early_ends.append(event.message)
        case CandidateMeasured():
            added.measured.append(event)
        case ModelMeasured():
            added.models.append(event.result)
            added.disputed.extend(event.disputed)
        case Warned():
            added.warnings.append(event)
        case PhaseStarted():
            changes.update(phase=event.phase, phase_started_at=event.at, progress=None)
        case PreflightDone():
            changes.update(checks=event.rows, host_bytes=event.host_bytes, device_bytes=event.device_bytes)
        case DataReady():
            changes["data"] = event
        case Exported():
            changes["exported"] = event
        case _:
            _collect_status(event, view, changes)


def _warn_of_estimates(event: CandidateScored, view: RunView, added: _Added) -> None:
    """Warn once that candidates with losses estimated by racing (earlier versions) are left out of the view."""
    if all(warned.message != ESTIMATES for warned in (*view.warnings, *added.warnings)):
        added.warnings.append(Warned(at=event.at, message=ESTIMATES, hint="events.jsonl has them."))


def _collect_status(event: Event, view: RunView, changes: dict[str, Any]) -> None:
    match event:
        case RunStarted():
            changes.update(status="running", spec=event.spec, started_at=event.at)
        case Resumed():
            paused_s = changes.get("paused_s", view.paused_s) + event.paused_s
            changes.update(status="running", message="", hint="", progress=None, paused_s=paused_s)
        case Finished():
            changes.update(status="finished", result=event.result, progress=None)
        case Failed():
            changes.update(status="failed", message=event.message, hint=event.hint)
        case Cancelled():
            changes.update(status="cancelled", message=event.message)
