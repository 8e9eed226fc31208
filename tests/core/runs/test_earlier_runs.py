"""Runs of earlier versions, whose search was removed, open for viewing, and are not resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.cli.main import main
from core.contracts.events import CandidateScored, Finished
from core.contracts.run_spec import RunSpec
from core.errors import RunError
from core.jobs.worker import resume_run, resume_worker
from core.report.build_report import build_report
from core.report.markdown import to_markdown
from core.report.run_record import read_run
from core.runs.candidates import find_candidate
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.runs.summaries import list_runs
from core.runs.view import ESTIMATES, fold
from core.settings import Settings
from tests.earlier_run import ESTIMATED, REMOVED, earlier_run
from tests.raising import raises


@pytest.fixture
def run(settings: Settings) -> RunFolder:
    """A finished run of an earlier version."""
    return earlier_run(settings.runs / "earlier")


def test_it_is_listed_as_what_it_is(run: RunFolder, settings: Settings) -> None:
    (line,) = list_runs(settings)
    assert (line.status, line.method, line.pool) == ("finished", "ties", ("demo/aligned", "demo/chemistry"))
    assert line.best_objective is not None and line.best_objective > 0
    assert line.merged is not None and line.merged.name == REMOVED
    run.spec_path.unlink()
    (line,) = list_runs(settings)
    assert line.status == "finished"


def test_estimated_candidates_are_left_out_of_the_view_with_one_warning(run: RunFolder) -> None:
    view = read_view(run)
    own = [candidate for candidate in view.candidates if candidate.search == REMOVED]
    assert len(own) == 30 - len(ESTIMATED) and not {candidate.candidate for candidate in own} & set(ESTIMATED)
    assert [warned.message for warned in view.warnings].count(ESTIMATES) == 1
    best = view.best()
    assert best is not None and best.candidate not in ESTIMATED
    events = run.read_events()
    for cut in range(0, len(events), 7):
        assert fold(events[cut:], fold(events[:cut])) == fold(events)


def test_a_run_without_estimates_has_no_such_warning(settings: Settings) -> None:
    view = read_view(earlier_run(settings.runs / "surrogate", racing=False))
    assert len([one for one in view.candidates if one.search == REMOVED]) == 30
    assert ESTIMATES not in [warned.message for warned in view.warnings]


def test_its_report_has_its_pool_and_says_that_its_search_was_removed(run: RunFolder) -> None:
    record = read_run(run)
    assert isinstance(record.spec, RunSpec) and record.spec.search.optimizer == REMOVED
    assert "spec" not in {part.part for part in record.missing}
    text = to_markdown(build_report(record), "charts")
    assert f"Search: {REMOVED}, which was removed after this run." in text
    assert "demo/chemistry" in text and ESTIMATES in text
    assert main(["report", str(run.path)]) == 0


def test_its_candidates_can_be_exported_unless_estimated(run: RunFolder) -> None:
    assert find_candidate(run, None, alpha=0.3).candidate.candidate not in ESTIMATED
    assert find_candidate(run, 0).candidate.search == REMOVED
    with raises(RunError, "candidate-partial"):
        find_candidate(run, ESTIMATED[0])


@pytest.mark.parametrize("racing", [True, False])
def test_an_unfinished_one_is_not_resumed(settings: Settings, racing: bool, capsys: pytest.CaptureFixture[str]) -> None:
    run = earlier_run(settings.runs / "stopped", racing=racing, finished=False)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with raises(RunError, "search-removed") as caught:
        resume_worker(settings, run)
    assert REMOVED in caught.value.message and ("search.racing" in caught.value.message) == racing
    with raises(RunError, "search-removed"):
        resume_run(run, settings)
    assert main(["resume", str(run.path)]) == 1
    assert "bayes or gradient" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_racing_in_the_log_alone_is_enough(settings: Settings) -> None:
    run = earlier_run(settings.runs / "stopped", finished=False)
    text = run.spec_path.read_text().replace(REMOVED, "evomm").replace("racing: true", "racing: false")
    run.spec_path.write_text(text)
    log = run.events_path.read_text().replace(f'"optimizer":"{REMOVED}"', '"optimizer":"evomm"')
    run.events_path.write_text(log.replace('"racing":true', '"racing":false'))
    assert any(isinstance(event, CandidateScored) and event.partial for event in run.read_events())
    with raises(RunError, "search-removed"):
        resume_worker(settings, run)


def test_a_finished_one_prints_its_result(run: RunFolder, settings: Settings, tmp_path: Path) -> None:
    assert isinstance(resume_worker(settings, run), Finished)
    with raises(RunError, "run-finished"):
        resume_run(run, settings)


def test_its_spec_starts_no_run(run: RunFolder, tmp_path: Path) -> None:
    assert main(["run", str(run.spec_path), "--out", str(tmp_path / "again")]) == 2
    assert not (tmp_path / "again").exists()
