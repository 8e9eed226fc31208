"""Run folders that released versions wrote open in this one: listed, on the page, in reports, and for exports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from core.cli.main import main
from core.contracts.events import SCHEMA_VERSION
from core.errors import RunError, SafeMergeError
from core.jobs.worker import resume_worker
from core.report.write_report import write_report
from core.runs.candidates import find_candidate
from core.runs.exports import list_exports
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.runs.summaries import list_runs
from core.settings import Settings
from safemerge_ui.app_context import make_context
from tests.raising import raises
from tests.ui.session import Session

RECORDED = Path(__file__).parents[2] / "recorded_runs"
RUNS = {f"{path.parent.name}/{path.name}": path for path in sorted(RECORDED.glob("*/*/"))}
MERGES = ("evomm", "bayes", "gradient")
MOST_BYTES = 300_000
TABS = ("merge", "data", "evaluate", "audit", "runs")


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, settings: Settings) -> RunFolder:
    """A recorded run in this test's runs folder."""
    source = RUNS[request.param]
    return RunFolder(Path(shutil.copytree(source, settings.runs / source.name)))


def _expected(run: RunFolder) -> str:
    return run.run_id if run.run_id in ("failed", "cancelled") else "finished"


def test_the_corpus_is_small_and_has_a_run_of_each_kind() -> None:
    versions = {path.parent.name for path in RUNS.values()}
    assert "0.1.0" in versions
    for version in versions:
        size = sum(path.stat().st_size for path in (RECORDED / version).rglob("*") if path.is_file())
        assert size < MOST_BYTES
        assert {path.name for path in RUNS.values()} >= {*MERGES, "cancelled", "failed", "comparison"}


def test_it_is_listed(run: RunFolder, settings: Settings) -> None:
    (line,) = list_runs(settings)
    assert (line.status, line.kind) == (_expected(run), "comparison" if run.run_id == "comparison" else "merge")
    assert line.pool and line.started_at and line.elapsed_s is not None
    if run.run_id in MERGES:
        assert line.merged is not None and line.merged.sha256 and line.best_objective is not None
    view = read_view(run)
    assert view.status == _expected(run) and (view.message or view.status == "finished")
    assert all("damaged" not in warned.message for warned in view.warnings)


def test_it_opens_on_the_page(run: RunFolder, settings: Settings) -> None:
    session = Session(make_context(settings))
    filled = session.show(run.run_id)
    for tab in TABS:
        filled |= session.open(tab)
    assert len(filled) > 5


def test_it_has_a_report(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run.path)]) == 0
    report = write_report(run)
    text = report.html.read_text(encoding="utf-8")
    assert run.run_id in text
    assert "expert-1" in text or run.run_id == "failed"


def test_its_export_says_what_is_missing(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Its models and prompts are not here: that is said before anything is loaded."""
    with pytest.raises(SafeMergeError) as caught:
        find_candidate(run, 1)
    assert caught.value.code in ("input-changed", "no-candidates", "no-merge") and caught.value.hint
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert main(["export", str(run.path), "--candidate", "1"]) == 1
    assert "Error:" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_the_record_of_a_saved_candidate_is_read(settings: Settings) -> None:
    run = RunFolder(Path(shutil.copytree(RUNS["0.1.0/evomm"], settings.runs / "evomm")))
    statuses = [record.read() for record in list_exports(run)]
    assert [(status.candidate, status.state, len(status.sha256)) for status in statuses if status] == [(3, "saved", 64)]


def test_an_unfinished_one_says_why_it_is_not_resumed(settings: Settings) -> None:
    run = RunFolder(Path(shutil.copytree(RUNS["0.1.0/cancelled"], settings.runs / "cancelled")))
    before = run.events_path.read_bytes()
    with pytest.raises(SafeMergeError) as caught:
        resume_worker(settings, run)
    assert caught.value.hint and run.events_path.read_bytes() == before


def test_a_run_of_a_newer_version_is_refused_with_the_reason(settings: Settings) -> None:
    run = RunFolder(Path(shutil.copytree(RUNS["0.1.0/evomm"], settings.runs / "newer")))
    started, *lines = run.events_path.read_text(encoding="utf-8").splitlines(keepends=True)
    newer = json.dumps(json.loads(started) | {"schema_version": SCHEMA_VERSION + 1}) + "\n"
    run.events_path.write_text(newer + "".join(lines) + '{"kind": "teleported", "at": 1.0}\n', encoding="utf-8")
    for read in (lambda: read_view(run), lambda: resume_worker(settings, run), lambda: write_report(run)):
        with raises(RunError, "log-version"):
            read()
    (line,) = list_runs(settings)
    assert line.status == "failed" and "version" in line.message
