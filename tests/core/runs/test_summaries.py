"""The list of runs: newest first, cached by the state of the files, and as true as a list that reads everything."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from core.contracts.events import Cancelled, Finished, RunStarted, Warned
from core.contracts.results import RunResult
from core.contracts.run_spec import RunSpec
from core.errors import DataError, RunCancelled
from core.jobs.worker import run_worker
from core.runs import summaries
from core.runs.folder import RunFolder
from core.runs.process import mark_started
from core.runs.summaries import RunList, list_runs
from core.settings import Settings
from tests.core.jobs.fake_jobs import job_of, raising, scored


def test_runs_are_listed_newest_first_and_a_broken_folder_as_failed(
    spec: RunSpec, settings: Settings, result: RunResult
) -> None:
    assert list_runs(settings) == []
    old, new = RunFolder(settings.runs / "20250101-000000-aaaa"), RunFolder(settings.runs / "20250102-000000-aaaa")
    run_worker(spec, settings, old, job=job_of(lambda _: iter([scored(1, 0.5), Finished(result=result)])))
    run_worker(spec, settings, new, job=raising(DataError("Row 3 is empty.")))
    broken = RunFolder(settings.runs / "20250103-000000-aaaa")
    broken.create()
    broken.events_path.write_text("nonsense\n")
    (settings.runs / "not-a-run").mkdir()

    summaries = list_runs(settings)
    assert [(each.run_id[:8], each.status) for each in summaries] == [
        ("20250103", "failed"),
        ("20250102", "failed"),
        ("20250101", "finished"),
    ]
    assert "spec.yaml" in summaries[0].message
    assert summaries[1].message == "Row 3 is empty."
    assert summaries[2].pool == ("demo/aligned", "demo/chemistry")
    assert (summaries[2].method, summaries[2].best_objective) == ("ties", 0.5)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs whose log was read."""
    read, names = summaries.read_view, list[str]()

    def counted(folder: RunFolder) -> object:
        names.append(folder.run_id)
        return read(folder)

    monkeypatch.setattr(summaries, "read_view", counted)
    return names


def test_an_ended_run_is_read_once_also_by_later_processes(
    spec: RunSpec, settings: Settings, result: RunResult, reads: list[str]
) -> None:
    folder = RunFolder(settings.runs / "done")
    run_worker(spec, settings, folder, job=job_of(lambda _: iter([scored(1, 0.5), Finished(result=result)])))
    first = RunList(settings.runs)
    assert first.read() == first.read() == list_runs(settings)
    assert reads == ["done"]
    (summary,) = list_runs(settings)
    assert summary.merged == result.models[0]
    folder.summary_path.unlink()
    assert list_runs(settings) == [summary]
    assert reads == ["done", "done"]


@pytest.mark.parametrize("text", ["half a", "[]", '{"version": 0}', '{"version": 1, "files": [1]}'])
def test_a_damaged_or_old_cache_is_ignored(spec: RunSpec, settings: Settings, text: str) -> None:
    folder = RunFolder(settings.runs / "r")
    run_worker(spec, settings, folder, job=raising(RunCancelled()))
    before = list_runs(settings)
    folder.summary_path.write_text(text)
    assert list_runs(settings) == before
    assert json.loads(folder.summary_path.read_text())["version"] == summaries.VERSION


def test_a_copied_or_renamed_run_has_its_own_name(spec: RunSpec, settings: Settings) -> None:
    run_worker(spec, settings, RunFolder(settings.runs / "r"), job=raising(RunCancelled()))
    list_runs(settings)
    (settings.runs / "r").rename(settings.runs / "renamed")
    assert [(run.run_id, run.path.name) for run in list_runs(settings)] == [("renamed", "renamed")]


def test_a_run_that_goes_on_is_read_again(
    spec: RunSpec, settings: Settings, folder: RunFolder, reads: list[str]
) -> None:
    run_worker(spec, settings, folder, job=raising(RunCancelled()))
    listed = RunList(settings.runs)
    assert [run.status for run in listed.read()] == ["cancelled"]
    folder.reopen(mark_started(os.getpid()))
    assert [run.status for run in listed.read()] == ["running"]
    assert [run.status for run in listed.read()] == ["running"]
    folder.append_event(Warned(message="Few pairs."))
    folder.append_terminal(Cancelled())
    assert [run.status for run in listed.read()] == [run.status for run in list_runs(settings)] == ["cancelled"]
    assert len(reads) == 3


def test_a_listed_run_whose_worker_dies_is_ended_at_the_next_look(settings: Settings, spec: RunSpec) -> None:
    folder = RunFolder(settings.runs / "r")
    folder.create()
    folder.write_spec(spec)
    folder.append_event(RunStarted(spec={}))
    mark = mark_started(os.getpid())
    folder.write_worker(mark)
    listed = RunList(settings.runs)
    assert [run.status for run in listed.read()] == ["running"]
    folder.write_worker(replace(mark, start="an earlier process"))
    assert [run.status for run in listed.read()] == ["failed"]


def test_a_folder_that_cannot_be_written_is_listed(
    spec: RunSpec, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(settings.runs / "r")
    run_worker(spec, settings, folder, job=raising(RunCancelled()))
    folder.summary_path.mkdir()
    (folder.summary_path / "in the way").touch()
    assert [run.status for run in list_runs(settings)] == ["cancelled"]
