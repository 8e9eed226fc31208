"""Runs on a disk that fills up or becomes read-only, and runs whose folder is deleted: each ends with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from benchmarks.faults.folder_checks import differences, ending_of, half_written, leftovers
from core.contracts.events import CandidateScored, Event, Failed, Finished, ModelMeasured, SampleSeen
from core.contracts.run_spec import RunSpec
from core.errors import RunError
from core.jobs.worker import resume_worker, run_worker, start_run
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.settings import Settings
from tests.core.jobs.resuming import DEAD
from tests.raising import raises
from tests.small_disk import small_disk
from tests.tiny_runs import Files, spec_of

PLENTY = "size=64m"


@pytest.fixture(scope="module")
def spec(tiny_llama: Path, tiny_expert: Path, files: Files) -> RunSpec:
    evaluation = {"prompts": files.prompts, "benign": files.benign, "probe": files.probe}
    return spec_of(tiny_llama, tiny_expert, files, evaluation=evaluation, search={"steps": 6, "compare": ["equal"]})


@pytest.fixture(scope="module")
def finished(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An undisturbed run."""
    place = tmp_path_factory.mktemp("undisturbed")
    folder = RunFolder(place / "runs" / "whole")
    assert isinstance(run_worker(spec, _settings(place), folder), Finished)
    return folder


def _settings(place: Path) -> Settings:
    return Settings(place / "home", place / "runs", False, frozenset(), None, 2.0, reply_cache_bytes=0)


def _size(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("share", [0.06, 0.12, 0.3, 0.55, 0.8, 0.97])
def test_a_full_disk_ends_the_run_with_the_reason_and_it_resumes(
    share: float, spec: RunSpec, finished: RunFolder, settings: Settings, tmp_path: Path
) -> None:
    size_bytes = int(share * _size(finished.path)) // 4096 * 4096
    with small_disk(tmp_path / "disk", size_bytes) as disk:
        folder = RunFolder(disk.path / "run")
        end = run_worker(spec, settings, folder)
        assert isinstance(end, Failed), end
        assert "space" in end.message.lower() and "disk space" in end.hint.lower() and not end.traceback, end
        assert half_written(folder.path) == []
        disk.remount(PLENTY)
        folder.write_worker(DEAD)
        view = read_view(folder)
        assert view.status == "failed" and "disk" in view.hint
        assert isinstance(resume_worker(settings, folder), Finished)
        assert differences(ending_of(folder), ending_of(finished)) == [] and leftovers(folder.path) == []


def test_a_disk_that_is_full_at_the_start_leaves_no_run(spec: RunSpec, settings: Settings, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        full = replace(settings, runs=disk.path)
        with raises(RunError, "disk-full"):
            start_run(spec, full)
        assert [path.name for path in disk.path.iterdir()] == [".busy"]


@pytest.mark.parametrize("moment", [SampleSeen, CandidateScored, ModelMeasured])
def test_a_disk_that_becomes_read_only_ends_the_run(
    moment: type[Event], spec: RunSpec, finished: RunFolder, settings: Settings, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        folder = RunFolder(disk.path / "run")
        end = run_worker(spec, settings, folder, on_event=_at(moment, partial(disk.remount, "ro")))
        assert isinstance(end, Failed) and "Read-only" in end.message and end.hint
        with raises(RunError, "not-writable"):
            folder.write_worker(DEAD)
        disk.remount("rw")
        folder.write_worker(DEAD)
        disk.remount("ro")
        view = read_view(folder)
        assert view.status == "failed" and "Read-only" in view.hint
        with raises(RunError, "not-writable"):
            resume_worker(settings, folder)
        disk.remount("rw")
        assert isinstance(resume_worker(settings, folder), Finished)
        assert differences(ending_of(folder), ending_of(finished)) == []


def _at(kind: type[Event], action: Callable[[], object]) -> Callable[[Event], None]:
    """A function that acts at events of a kind."""

    def act(event: Event) -> None:
        if isinstance(event, kind):
            action()

    return act


@pytest.mark.parametrize("moment", [SampleSeen, CandidateScored, ModelMeasured])
def test_a_folder_deleted_during_the_run_ends_it_and_does_not_come_back(
    moment: type[Event], spec: RunSpec, settings: Settings
) -> None:
    folder = RunFolder(settings.runs / "run")
    end = run_worker(spec, settings, folder, on_event=_at(moment, partial(shutil.rmtree, folder.path, True)))
    assert isinstance(end, Failed) and "was deleted" in end.message and "new one" in end.hint
    assert not folder.path.exists()


def test_a_folder_moved_away_can_be_resumed_where_it_is(spec: RunSpec, finished: RunFolder, settings: Settings) -> None:
    folder, moved = RunFolder(settings.runs / "run"), RunFolder(settings.runs / "moved")

    def move(event: Event) -> None:
        if isinstance(event, CandidateScored) and folder.path.exists():
            folder.path.rename(moved.path)

    end = run_worker(spec, settings, folder, on_event=move)
    assert isinstance(end, Failed) and str(folder.path) in end.message
    moved.write_worker(DEAD)
    assert isinstance(resume_worker(settings, moved), Finished)
    assert differences(ending_of(moved), ending_of(finished)) == []
