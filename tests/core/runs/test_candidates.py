"""Which candidate of a run can be exported: found by number or alpha, or refused, all from the log."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import Cancelled, CandidateScored, Event, RunStarted
from core.contracts.run_spec import RunSpec
from core.errors import RunError, SpecError
from core.runs.candidates import best_candidate, find_candidate, saved_candidates
from core.runs.folder import RunFolder
from core.runs.process import mark_process
from tests.raising import raises

RECIPE = {"method": "ties", "base": "demo/aligned", "experts": ["demo/chemistry"], "weights": [0.5], "densities": [1]}


def scored(number: int, safety: float | None, expert: float, search: str = "evomm", **more: Any) -> CandidateScored:
    losses = {"objective": expert, "ce_safety": safety, "ce_expert": expert, "seconds": 1.0}
    recipe = more.pop("recipe", RECIPE)
    return CandidateScored(search=search, candidate=number, generation=0, recipe=recipe, **losses, **more)


CANDIDATES = (
    scored(0, 0.2, 2.0),
    scored(1, 1.0, 0.5),
    scored(2, 9.0, 9.0, failure="the weights cancel"),
    scored(3, 0.1, 0.1, samples=16, all_samples=64, recipe=RECIPE | {"weights": [0.7]}),
    scored(4, 0.6, 0.6, recipe=RECIPE | {"weights": [0.7]}),
    scored(0, None, 0.3, search="evomm_expert_only"),
)


@pytest.fixture
def run(tmp_path: Path, spec: RunSpec) -> RunFolder:
    """A run that was stopped after its candidates."""
    folder = RunFolder(tmp_path / "stopped")
    folder.create()
    folder.write_spec(spec)
    events: list[Event] = [RunStarted(spec=spec.model_dump(mode="json")), *CANDIDATES, Cancelled()]
    for event in events:
        folder.append_event(event)
    return folder


def test_a_candidate_is_found_by_its_number_with_a_folder_of_its_own(run: RunFolder, tmp_path: Path) -> None:
    request = find_candidate(run, 1)
    assert (request.candidate.candidate, request.candidate.ce_safety) == (1, 1.0)
    assert request.target == run.path / "candidates" / "1"
    other = find_candidate(run, 0, search="evomm_expert_only")
    assert other.candidate.ce_safety is None
    assert other.target == run.path / "candidates" / "evomm_expert_only-0"
    assert find_candidate(run, 1, target=tmp_path / "mine").target == tmp_path / "mine"


def test_alpha_chooses_among_those_scored_on_all_pairs(run: RunFolder) -> None:
    chosen = [find_candidate(run, None, alpha=alpha).candidate.candidate for alpha in (0.0, 0.6, 20.0)]
    assert chosen == [0, 4, 1]
    assert best_candidate(CANDIDATES[2:4], 0.3) is None
    with pytest.raises(SpecError, match="-1"):
        find_candidate(run, None, alpha=-1.0)
    with raises(RunError, "not-ranked"):
        find_candidate(run, None, search="evomm_expert_only")


@pytest.mark.parametrize(
    ("number", "search", "code", "named"),
    [
        (2, "", "candidate-failed", "the weights cancel"),
        (3, "", "candidate-partial", "16 of 64 pairs"),
        (5, "", "no-candidate", "candidate 5 "),
        (-1, "", "no-candidate", "candidate -1 "),
        (0, "grid", "no-candidates", "evomm, evomm_expert_only"),
    ],
)
def test_an_unavailable_candidate_is_refused_and_named(
    run: RunFolder, number: int, search: str, code: str, named: str
) -> None:
    with raises(RunError, code) as caught:
        find_candidate(run, number, search=search)
    assert named in str(caught.value)


def test_a_target_that_holds_something_is_left_alone(run: RunFolder, tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    for folder in (full, empty):
        folder.mkdir()
    (full / "mine.txt").write_text("mine")
    for taken in (full, full / "mine.txt"):
        with raises(RunError, "target-taken"):
            find_candidate(run, 1, target=taken)
    assert find_candidate(run, 1, target=empty).target == empty


def test_a_folder_that_is_no_run_or_lacks_its_spec_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with raises(RunError, "not-a-run"):
        find_candidate(RunFolder(tmp_path), 0)
    run.spec_path.unlink()
    with pytest.raises(SpecError):
        find_candidate(run, 0)


def test_a_run_at_work_and_one_without_candidates_are_refused(tmp_path: Path, spec: RunSpec) -> None:
    run = RunFolder(tmp_path / "young")
    run.create()
    run.write_spec(spec)
    run.append_event(RunStarted(spec=spec.model_dump(mode="json")))
    with raises(RunError, "no-candidates"):
        find_candidate(run, 0)
    mark = mark_process(os.getpid())
    assert mark is not None
    run.write_worker(mark)
    with raises(RunError, "run-at-work"):
        find_candidate(run, 0)
    run.write_worker(replace(mark, host="another-host"))
    with raises(RunError, "worker-elsewhere"):
        find_candidate(run, 0)


def test_saved_candidates_are_whole_models_of_the_runs_own_search(run: RunFolder) -> None:
    assert saved_candidates(run) == {}
    for name in ("10", "2", "evomm_expert_only-0", ".3.partial"):
        (run.path / "candidates" / name).mkdir(parents=True)
        (run.path / "candidates" / name / "config.json").write_text("{}")
    (run.path / "candidates" / "4").mkdir()
    assert saved_candidates(run) == {number: run.path / "candidates" / str(number) for number in (2, 10)}
    assert list(saved_candidates(run)) == [2, 10]
