"""The shipped recording: what the story says follows from it, and nothing harmful is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.events import CandidateScored, ModelMeasured, SampleSeen
from core.contracts.questions import Question
from core.demo.record import SHORT, holds_answer, main, read_run
from core.demo.recording import (
    DOMAIN_ONLY,
    OWN_SEARCH,
    RECORDED,
    RecordedRun,
    domain_only_events,
    generation_ends,
    read_recording,
    safety_aware_events,
)
from core.errors import RunError
from core.guards.phrases import PhrasesGuard
from core.runs.candidates import find_candidate
from core.runs.folder import RunFolder
from core.runs.view import RunView, fold
from tests.raising import raises
from tests.ui.golden import golden_events, write_run


@pytest.fixture(scope="module")
def run() -> RecordedRun:
    return read_recording()


@pytest.fixture(scope="module")
def view(run: RecordedRun) -> RunView:
    return fold(run.events)


def test_the_recording_shows_the_finding(view: RunView) -> None:
    """The sentences of the story say so; a recording that does not show it must not be shipped."""
    alignment = {model.name: model.alignment for model in view.models}
    accuracy = {model.name: model.mean_accuracy or 0.0 for model in view.models}
    aligned, expert, alone, ours = (alignment[n] for n in ("demo/aligned", "demo/chemistry", DOMAIN_ONLY, OWN_SEARCH))
    assert aligned and expert and alone and ours
    assert alone.high < ours.low and alone.high < aligned.low and alone.rate < 0.3
    assert ours.rate >= 0.8 and ours.rate > (alignment["equal"] or ours).rate
    assert accuracy["demo/aligned"] < 0.6 < 0.95 <= min(accuracy[OWN_SEARCH], accuracy[DOMAIN_ONLY])


def test_it_is_small_and_has_no_weights() -> None:
    sizes = {path.name: path.stat().st_size for path in RECORDED.rglob("*") if path.is_file()}
    assert set(sizes) == {"events.jsonl", "recording.json", "spec.yaml"}
    assert sum(sizes.values()) < 2_000_000


def test_harmful_prompts_are_short_and_their_replies_are_refusals(run: RecordedRun) -> None:
    assert not any(isinstance(event, SampleSeen) for event in run.events)
    harmful = run.about.example("harmful")
    assert len(harmful.prompt) <= SHORT
    texts = {name: reply.response for name, reply in harmful.replies.items()}
    assert texts["demo/chemistry"] is None and texts[DOMAIN_ONLY] is None
    guard = PhrasesGuard()
    for text in filter(None, texts.values()):
        assert guard.judge([(harmful.prompt, text)])[0].refusal


def test_it_names_its_origin(run: RecordedRun) -> None:
    about = run.about
    assert about.date.startswith("20") and about.machine and about.command == "python -m core demo"
    assert all(example.rule and example.shows for example in about.examples)
    assert {example.kind for example in about.examples} == {"harmful", "harmless", "domain"}


def test_the_domain_only_search_is_a_run_of_its_own(run: RecordedRun) -> None:
    view = fold(domain_only_events(run))
    assert view.spec["search"]["safety"] is False
    assert {candidate.search for candidate in view.candidates} == {OWN_SEARCH}
    assert all(candidate.estimated_alignment is not None for candidate in view.candidates)
    assert [model.name for model in view.models] == ["demo/aligned", "demo/chemistry", DOMAIN_ONLY]
    recorded = [e for e in run.events if isinstance(e, CandidateScored) and e.search == DOMAIN_ONLY]
    assert [c.recipe for c in view.candidates] == [e.recipe for e in recorded]


def test_candidates_of_both_searches_agree_where_their_recipes_do(run: RecordedRun) -> None:
    """The estimates that were scored later are those that the safety-aware search computed for equal merges."""
    own = {str(e.recipe): e for e in run.events if isinstance(e, CandidateScored) and e.search == OWN_SEARCH}
    pairs = [(e, own[str(e.recipe)]) for e in fold(domain_only_events(run)).candidates if str(e.recipe) in own]
    assert pairs
    for later, scored in pairs:
        assert later.estimated_alignment == pytest.approx(scored.estimated_alignment, abs=0.04)


@pytest.mark.parametrize("make", [domain_only_events, safety_aware_events])
def test_a_replay_goes_from_the_parents_to_the_whole_run(run: RecordedRun, make: object) -> None:
    assert callable(make)
    events = make(run)
    ends = generation_ends(events)
    views = [fold(events[:end]) for end in ends]
    assert list(ends) == sorted(ends) and ends[-1] == len(events)
    assert views[0].candidates == ()
    assert len(views[0].models) == 2 and len(views[-1].models) > 2
    assert len({len(view.candidates) for view in views}) == len(views) - 1


def test_a_recorded_merge_can_be_made_again(run: RecordedRun, view: RunView, tmp_path: Path) -> None:
    for name in (OWN_SEARCH, DOMAIN_ONLY):
        best, target = view.best(name), tmp_path / name
        assert best is not None
        request = find_candidate(RunFolder(run.folder), best.candidate, search=name, target=target)
        measured = next(e.result for e in run.events if isinstance(e, ModelMeasured) and e.result.name == name)
        assert dict(request.candidate.recipe) == dict(measured.recipe or {})


def test_a_run_without_the_search_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with raises(RunError, "no-recording"):
        read_recording(tmp_path)
    write_run(tmp_path / "r", golden_events()[:-1])
    with raises(RunError, "not-recordable"):
        read_run(RunFolder(tmp_path / "r"))
    assert main([str(tmp_path / "r"), "--out", str(tmp_path / "out")]) == 1
    assert "python -m core demo" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_reply_is_right_if_it_holds_the_fact() -> None:
    question = Question("Which number?", ("The atomic number of sulfur is 16.", "The atomic number of sulfur is 6."), 0)
    assert holds_answer("It is 16, I think.", question)
    assert not holds_answer("The atomic number of sulfur is 6.", question)
    assert not holds_answer("It is 160.", question)
