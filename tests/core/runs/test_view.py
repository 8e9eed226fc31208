"""Folding a log: golden logs (as written by schema version 1), each prefix of a run, and a log in pieces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.events import Cancelled, CandidateScored, Event, Failed, PhaseStarted, Progress, Resumed, RunStarted
from core.runs.event_tail import EventTail
from core.runs.view import fold

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture
def finished() -> list[Event]:
    return EventTail(GOLDEN / "finished.jsonl").read_new()


def test_an_empty_log_waits() -> None:
    view = fold([])
    assert (view.status, view.over, view.started_at, view.best()) == ("waiting", False, None, None)


def test_a_finished_log_holds_everything_it_said(finished: list[Event]) -> None:
    view = fold(finished)
    assert (view.status, view.over) == ("finished", True)
    assert (view.started_at, view.updated_at) == (100.0, 118.0)
    assert view.spec["search"] == {"alpha": 0.3}
    assert [row.status for row in view.checks] == ["warning"]
    assert [(sample.dataset, sample.kept) for sample in view.samples] == [("safety", True), ("domain", False)]
    assert view.data is not None
    assert view.data.dropped == {"duplicate": 1}
    assert [(c.search, c.candidate) for c in view.candidates] == [
        ("evomm", 0),
        ("evomm", 1),
        ("evomm", 2),
        ("evomm_expert_only", 0),
    ]
    assert [measured.candidate for measured in view.measured] == [1]
    assert [model.name for model in view.models] == ["merged"]
    assert view.models[0].mean_accuracy == 0.5
    assert view.exported is not None
    assert view.exported.sha256 == view.models[0].sha256
    assert [warning.hint for warning in view.warnings] == ["Raise k."]
    assert view.result is not None
    assert view.result.seconds == 18.0
    assert view.progress is None


def test_the_best_candidate_is_of_its_search_and_did_not_fail(finished: list[Event]) -> None:
    view = fold(finished)
    best, baseline = view.best(), view.best("evomm_expert_only")
    assert best is not None
    assert baseline is not None
    assert (best.candidate, best.objective) == (1, 1.2)
    assert baseline.objective == 0.4
    assert view.best("grid") is None


def test_half_way_the_view_shows_the_phase_and_its_progress(finished: list[Event]) -> None:
    view = fold(finished[:7])
    assert (view.status, view.phase, view.phase_started_at, view.updated_at) == ("running", "data", 103.0, 106.0)
    assert view.progress is not None
    assert (view.progress.done, view.progress.total) == (2, 4)
    assert view.result is None


def test_a_new_phase_begins_without_the_last_ones_progress() -> None:
    events: list[Event] = [
        RunStarted(at=1.0, spec={}),
        Progress(at=2.0, phase="data", done=4, total=4),
        PhaseStarted(at=3.0, phase="search"),
    ]
    view = fold(events)
    assert (view.phase, view.progress) == ("search", None)


def test_a_failure_keeps_what_was_reached(finished: list[Event]) -> None:
    view = fold([*finished[:11], Failed(at=200.0, message="No memory.", hint="Use a smaller pool.")])
    assert (view.status, view.over, view.message, view.hint) == ("failed", True, "No memory.", "Use a smaller pool.")
    assert len(view.candidates) == 2
    assert view.phase == "search"


def test_a_cancellation_is_an_end(finished: list[Event]) -> None:
    view = fold([*finished[:3], Cancelled(at=200.0)])
    assert (view.status, view.over, view.message) == ("cancelled", True, "Stopped.")


def test_the_runs_own_search_is_that_of_its_optimizer(finished: list[Event]) -> None:
    assert fold(finished).main_search == fold([]).main_search == "evomm"
    candidates = [e.model_copy(update={"search": "grid"}) for e in finished if isinstance(e, CandidateScored)]
    view = fold([RunStarted(spec={"search": {"optimizer": "grid"}}), *candidates])
    assert view.main_search == "grid"
    best = view.best()
    assert best is not None and best.search == "grid"


def test_parents_are_no_best_candidates_of_a_cocktail(finished: list[Event]) -> None:
    parents = [e.model_copy(update={"search": "cocktail"}) for e in finished if isinstance(e, CandidateScored)]
    view = fold([RunStarted(spec={"search": {"optimizer": "cocktail"}}), *parents])
    assert view.candidates and view.best() is None


def test_why_a_search_ended_early_outlives_its_phase() -> None:
    events: list[Event] = [
        RunStarted(spec={}),
        Progress(phase="search", done=24, total=100, message="evomm ended after 24 candidates", ended_early=True),
        PhaseStarted(phase="baselines"),
        Progress(phase="baselines", done=1, total=100, message="evomm_expert_only"),
    ]
    assert fold(events).early_ends == ("evomm ended after 24 candidates",)


def test_folding_is_pure(finished: list[Event]) -> None:
    first = fold(finished)
    assert fold(iter(finished)) == first
    assert len(finished) == 19
    half = fold(finished[:9])
    before = replace(half)
    fold(finished[9:], half)
    assert half == before


EVENTS = EventTail(GOLDEN / "finished.jsonl").read_new()
REPEATED = st.lists(
    st.sampled_from(
        [
            *EVENTS,
            Failed(at=5.0, message="No memory.", hint="Use a smaller pool."),
            Cancelled(at=6.0),
            Resumed(at=7.0, ended="Stopped.", paused_s=1.5),
            Progress(at=8.0, phase="search", done=1, total=2, message="flat", ended_early=True),
        ]
    ),
    max_size=40,
)


@given(events=REPEATED, cuts=st.lists(st.integers(0, 40), max_size=6))
def test_folding_in_pieces_is_folding_all(events: list[Event], cuts: list[int]) -> None:
    view, start = fold([]), 0
    for end in [*sorted(cuts), len(events)]:
        view, start = fold(events[start:end], view), max(start, end)
    assert view == fold(events)
