"""Which candidate of a run can be had: found by number or alpha, and refused by name, all from the log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import Cancelled, CandidateScored, Event, RunStarted
from core.contracts.run_spec import RunSpec
from core.errors import RunError, SafeMergeError, SpecError
from core.runs.candidates import best_number, find_candidate, saved_candidates
from core.runs.folder import RunFolder
from core.runs.process import mark_process

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
    wanted = find_candidate(run, 1)
    assert (wanted.candidate.candidate, wanted.candidate.ce_safety) == (1, 1.0)
    assert wanted.target == run.path / "candidates" / "1"
    other = find_candidate(run, 0, search="evomm_expert_only")
    assert other.candidate.ce_safety is None
    assert other.target == run.path / "candidates" / "evomm_expert_only-0"
    assert find_candidate(run, 1, target=tmp_path / "mine").target == tmp_path / "mine"


def test_alpha_chooses_among_those_scored_on_all_pairs(run: RunFolder) -> None:
    chosen = [find_candidate(run, None, alpha=alpha).candidate.candidate for alpha in (0.0, 0.6, 20.0)]
    assert chosen == [0, 4, 1]
    assert best_number(CANDIDATES[2:4], 0.3) is None
    with pytest.raises(SpecError, match="Alpha is -1"):
        find_candidate(run, None, alpha=-1.0)
    with pytest.raises(RunError, match="evomm_expert_only has both losses"):
        find_candidate(run, None, search="evomm_expert_only")


@pytest.mark.parametrize(
    ("number", "search", "message", "hint"),
    [
        (2, "", r"Candidate 2 of evomm \(3 on the page\) could not be scored: the weights cancel", "another"),
        (3, "", r"Candidate 3 of evomm \(4 on the page\) was scored on 16 of 64 pairs", "is candidate 4"),
        (5, "", "no candidate 5 of evomm", "from 0 to 4"),
        (-1, "", "no candidate -1", "from 0 to 4"),
        (0, "grid", "stopped has no candidates of grid", "evomm, evomm_expert_only"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(
    run: RunFolder, number: int, search: str, message: str, hint: str
) -> None:
    with pytest.raises(RunError, match=message) as caught:
        find_candidate(run, number, search=search)
    assert hint in caught.value.hint


def test_a_target_that_holds_something_is_left_alone(run: RunFolder, tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    for folder in (full, empty):
        folder.mkdir()
    (full / "mine.txt").write_text("mine")
    for taken in (full, full / "mine.txt"):
        with pytest.raises(RunError, match="there already"):
            find_candidate(run, 1, target=taken)
    assert find_candidate(run, 1, target=empty).target == empty


def test_a_folder_that_is_no_run_or_lacks_its_spec_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run"):
        find_candidate(RunFolder(tmp_path), 0)
    run.spec_path.unlink()
    with pytest.raises(SafeMergeError, match=r"spec\.yaml"):
        find_candidate(run, 0)


def test_a_run_at_work_and_one_without_candidates_are_refused(tmp_path: Path, spec: RunSpec) -> None:
    run = RunFolder(tmp_path / "young")
    run.create()
    run.write_spec(spec)
    run.append_event(RunStarted(spec=spec.model_dump(mode="json")))
    with pytest.raises(RunError, match="young has no candidates of evomm") as caught:
        find_candidate(run, 0)
    assert "resume it" in caught.value.hint
    mark = mark_process(os.getpid())
    assert mark is not None
    run.write_worker(mark)
    with pytest.raises(RunError, match="young is at work"):
        find_candidate(run, 0)


def test_saved_candidates_are_whole_models_of_the_runs_own_search(run: RunFolder) -> None:
    assert saved_candidates(run) == {}
    for name in ("10", "2", "evomm_expert_only-0", ".3.partial"):
        (run.path / "candidates" / name).mkdir(parents=True)
        (run.path / "candidates" / name / "config.json").write_text("{}")
    (run.path / "candidates" / "4").mkdir()
    assert saved_candidates(run) == {number: run.path / "candidates" / str(number) for number in (2, 10)}
    assert list(saved_candidates(run)) == [2, 10]
