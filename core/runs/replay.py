"""What a run has done already, read from its log, so that a resumed run continues where it stopped.

A job is deterministic. A resumed job therefore runs through all phases again with its `Replay`: it takes what the log
holds from there and does only what is missing. `continue_log` then drops those of the job's events that the log has
already. The log reads as if the run had never stopped, except for `Resumed` and for what is really repeated (checks,
loading).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from core.contracts.comparison_spec import AnySpec, any_spec_from_dict
from core.contracts.events import (
    SCHEMA_VERSION,
    CandidateMeasured,
    CandidateScored,
    DataReady,
    Event,
    Finished,
    GradientStep,
    ModelMeasured,
    PhaseStarted,
    PoolLoaded,
    PreflightDone,
    Progress,
    Resumed,
    RunStarted,
    SampleSeen,
    Warned,
    is_terminal,
)
from core.contracts.results import Role
from core.data.training_pairs import Dataset
from core.errors import RunError, SpecError
from core.merging.recipes import LATEST_MASK_VERSION, Recipe
from core.merging.scopes import Scope
from core.runs.folder import RunFolder
from core.runs.input_files import refuse_changed_inputs

E = TypeVar("E")

_REPEATED_PHASES = ("preflight", "loading")
"""Phases that a resumed run really does again."""


@dataclass(frozen=True)
class Replay:
    """The events of a run so far, oldest first; empty for a new run."""

    events: tuple[Event, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds of work so far, without pauses and without the time after the last work event."""
        worked = [event for event in self.events if not is_terminal(event)]
        steps = pairwise(worked)
        return sum(after.at - before.at for before, after in steps if not isinstance(after, Resumed))

    @property
    def dtype(self) -> str | None:
        """torch name of the number format that the pool was loaded in; None when it was not loaded yet."""
        return next((event.dtype for event in self.of(PoolLoaded)), None)

    @property
    def mask_version(self) -> int:
        """Version of DARE's masks in the run's candidates; the latest when no candidate has dropped entries yet."""
        recipes = [Recipe.model_validate(event.recipe) for event in self.of(CandidateScored)]
        masked = (recipe for recipe in recipes if recipe.drops_at_random and _drops_entries(recipe))
        return next((recipe.mask_version for recipe in masked), LATEST_MASK_VERSION)

    @property
    def finished(self) -> Finished | None:
        """The event of a run that finished; None when work is left."""
        return next(self.of(Finished), None)

    @property
    def data_complete(self) -> bool:
        return any(self.of(DataReady))

    def of(self, kind: type[E]) -> Iterator[E]:
        """The events of one kind."""
        return (event for event in self.events if isinstance(event, kind))

    def rows(self, dataset: Dataset, part: int | None = None) -> list[SampleSeen]:
        """All rows of a training set, kept and dropped, or those of one of its sources."""
        return [row for row in self.of(SampleSeen) if row.dataset == dataset and part in (None, row.part)]

    def rounds(self, dataset: Dataset, part: int = 0) -> list[list[SampleSeen]]:
        """The rows of each completed round of one source of a training set."""
        rounds: list[list[SampleSeen]] = []
        current: list[SampleSeen] = []
        for event in self.events:
            if isinstance(event, SampleSeen) and (event.dataset, event.part) == (dataset, part):
                current.append(event)
            elif isinstance(event, Progress) and event.phase == "data" and current:
                rounds.append(current)
                current = []
        return rounds

    def measured_candidates(self, search: str) -> list[CandidateMeasured]:
        """What the probe measured during a search, in order."""
        return [event for event in self.of(CandidateMeasured) if event.search == search]

    def model(self, name: str, role: Role) -> ModelMeasured | None:
        """What was measured of a model on the test set."""
        found = (event for event in self.of(ModelMeasured) if (event.result.name, event.result.role) == (name, role))
        return next(found, None)


def _drops_entries(recipe: Recipe) -> bool:
    """Whether any density of the recipe or of its scopes is below 1."""
    parts: tuple[Recipe | Scope, ...] = (recipe, *recipe.scopes)
    return any(density < 1 for part in parts for density in part.densities or ())


def read_replay(folder: RunFolder) -> Replay:
    """Read the log of a run.

    Raises:
        RunError: the folder is not a run (code `not-a-run`), its log cannot be read or has another version, or a
            file that the spec names was changed (code `input-changed`).
        SpecError: `spec.yaml` differs from the spec that the run started with (code `spec-changed`).
    """
    if not folder.is_run:
        raise RunError(
            f"{folder.path} is not a run.",
            "Give the folder of a run, with its spec.yaml and events.jsonl.",
            code="not-a-run",
        )
    replay = Replay(tuple(folder.read_events()))
    spec = folder.read_spec()
    for started in replay.of(RunStarted):
        _check_same(folder, started, spec)
        refuse_changed_inputs(spec, started.inputs)
    return replay


def _check_same(folder: RunFolder, started: RunStarted, spec: AnySpec) -> None:
    if started.schema_version != SCHEMA_VERSION:
        raise RunError(
            f"The log of {folder.path} has version {started.schema_version}; this program writes {SCHEMA_VERSION}.",
            "Resume it with the version of SafeMerge that started it, or start a new run.",
            code="log-version",
        )
    if any_spec_from_dict(started.spec, stored=True) != spec:
        raise SpecError(
            f"{folder.spec_path} was changed since the run started.",
            "Restore it (the first line of events.jsonl holds the spec), or start a new run with the changed spec.",
            code="spec-changed",
        )


def continue_log(events: Iterable[Event], replay: Replay) -> Iterator[Event]:
    """The events of a resumed job without those that `replay` holds.

    Phases and their progress are reported from where new work begins. Checks and loading are always reported, because
    they are done again.
    """
    known = Counter(_key(event) for event in replay.events if not _is_repeated(event))
    behind = sum(count for key, count in known.items() if key[0] != "warned")
    phase: PhaseStarted | None = None
    for event in events:
        key = _key(event)
        if known[key] > 0:
            known[key] -= 1
            behind -= key[0] != "warned"
            continue
        if behind > 0 and isinstance(event, PhaseStarted | Progress) and event.phase not in _REPEATED_PHASES:
            phase = event if isinstance(event, PhaseStarted) else phase
            continue
        if not isinstance(event, PreflightDone | PhaseStarted | Progress):
            behind = 0  # new work: known events that have not come by now will not come
        if phase is not None and not isinstance(event, PhaseStarted):
            yield phase
        phase = None
        yield event


def _is_repeated(event: Event) -> bool:
    """Whether an event only reports the position of the run, which a resumed run reports again, and no result."""
    if isinstance(event, Progress):
        return not event.ended_early
    return isinstance(event, PhaseStarted | PreflightDone | Resumed)


def _key(event: Event) -> tuple[object, ...]:
    """Identifies an event both in the log and among the events of the resumed job."""
    match event:
        case SampleSeen():
            return event.kind, event.dataset
        case CandidateScored():
            return event.kind, event.search, event.candidate
        case GradientStep():
            return event.kind, event.search, event.step
        case CandidateMeasured():
            return event.kind, event.search, event.candidate, event.generation
        case ModelMeasured():
            return event.kind, event.result.role, event.result.name
        case Progress() | Warned():
            return event.kind, event.message
    return (event.kind,)
