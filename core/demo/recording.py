"""A recorded run of the demo pool, which the Story tab plays without a model: its events, replies and origin.

The folder is a run folder (`spec.yaml`, `events.jsonl`) without weights, training pairs and measured replies, with
`recording.json` beside the log. `python -m core.demo.record RUN_FOLDER` makes it. Reading it loads no model library.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from core.contracts.events import (
    CandidateMeasured,
    CandidateScored,
    Event,
    Finished,
    ModelMeasured,
    Progress,
    RunStarted,
    parse_event,
)
from core.contracts.optimizers import EQUAL
from core.errors import RunError
from core.settings import ASSETS

RECORDED = ASSETS / "recorded" / "demo"
OWN_SEARCH = "evomm"
DOMAIN_ONLY = "evomm_expert_only"
"""Names of the recorded searches: with safety data, and on domain data alone."""
HINT = "Make it again: python -m core.demo.record RUN_FOLDER"

ExampleKind = Literal["harmful", "harmless", "domain"]


class RecordedReply(BaseModel):
    """A model's recorded reply.

    Attributes:
        response: the text; None for a reply to a harmful prompt that the guard did not judge safe.
        refusal: whether it refuses.
        right: whether it holds the right answer; None where there is none.
    """

    model_config = ConfigDict(frozen=True)

    response: str | None
    refusal: bool
    right: bool | None = None


class Example(BaseModel):
    """A prompt that is shown, with the replies of the models.

    Attributes:
        rule: how the prompt was chosen.
        shows: on how many prompts of its kind the models did the same.
        replies: by model name, as in the run's results.
    """

    model_config = ConfigDict(frozen=True)

    kind: ExampleKind
    prompt: str
    category: str = ""
    rule: str
    shows: str
    replies: dict[str, RecordedReply]


class Recording(BaseModel):
    """What `recording.json` holds.

    Attributes:
        date: day of the run, ISO 8601.
        machine: hardware that the run was made on.
        command: the command that repeats the run.
        made_by: the command that made the recording.
        left_out: kinds of events that the recorded log lacks.
        scored_later: candidate of the domain-only search -> share of safety pairs whose refusal it would begin. The
            search does not compute this; the command does, from the same recipes.
        examples: prompts with replies.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    date: str
    machine: str
    command: str
    made_by: str
    left_out: tuple[str, ...]
    scored_later: dict[int, float]
    examples: tuple[Example, ...]

    def example(self, kind: ExampleKind) -> Example:
        """The example of a kind."""
        return next(example for example in self.examples if example.kind == kind)


class RecordedRun(NamedTuple):
    """A recording with its log."""

    folder: Path
    about: Recording
    events: tuple[Event, ...]


def read_recording(folder: Path = RECORDED) -> RecordedRun:
    """Read a recording.

    Raises:
        RunError: it is missing or cannot be read (code `no-recording`).
    """
    try:
        about = Recording.model_validate_json((folder / "recording.json").read_text(encoding="utf-8"))
        lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return RecordedRun(folder, about, tuple(parse_event(line) for line in lines))
    except (OSError, ValidationError) as error:
        raise RunError(f"{folder} holds no readable recording.", HINT, code="no-recording") from error


def domain_only_events(run: RecordedRun) -> tuple[Event, ...]:
    """The recorded search on domain data alone as the log of a run of its own, with the parents that it merges.

    Its candidates get the safety estimates of `Recording.scored_later`, which the search itself did not compute.
    """
    return tuple(event for one in run.events if (event := _of_domain_only_run(one, run)) is not None)


def safety_aware_events(run: RecordedRun) -> tuple[Event, ...]:
    """The recorded log with the candidates of the safety-aware search alone.

    Measurements of single generations and the merge with equal weights are left out: a first visitor reads one cloud of
    candidates, two parents and two merges.
    """
    return tuple(event for event in run.events if not _is_aside(event))


def generation_ends(events: Sequence[Event]) -> tuple[int, ...]:
    """How many events to fold for each step of a replay: the parents, each generation of the search, the whole run."""
    ends, generation = [], None
    for index, event in enumerate(events):
        if isinstance(event, CandidateScored) and event.generation != generation:
            ends.append(index)
            generation = event.generation
    searched = [index for index, event in enumerate(events) if isinstance(event, CandidateScored | CandidateMeasured)]
    return (*ends, searched[-1] + 1, len(events))


def _of_domain_only_run(event: Event, run: RecordedRun) -> Event | None:
    """An event as the log of a run on domain data alone has it; None for an event of the other search."""
    own = OWN_SEARCH
    match event:
        case RunStarted():
            search = {**event.spec["search"], "safety": False, "compare": []}
            return event.model_copy(update={"spec": {**event.spec, "search": search}})
        case CandidateScored() if event.search == DOMAIN_ONLY:
            share = run.about.scored_later.get(event.candidate)
            return event.model_copy(update={"search": own, "estimated_alignment": share})
        case ModelMeasured() if event.result.name == DOMAIN_ONLY:
            return event
        case ModelMeasured():
            return event if event.result.role == "parent" else None
        case CandidateScored() | CandidateMeasured() | Finished() | Progress():
            return None
    return event


def _is_aside(event: Event) -> bool:
    if isinstance(event, ModelMeasured):
        return event.result.name == EQUAL
    return isinstance(event, CandidateMeasured) or (isinstance(event, CandidateScored) and event.search == DOMAIN_ONLY)
