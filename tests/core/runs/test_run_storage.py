"""Finished runs are copied to a storage folder and restored from it; runs that are not over stay local."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.contracts.events import Cancelled, Event, PhaseStarted, RunStarted
from core.runs import run_storage
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.runs.run_storage import MANIFEST, RunStorage

EVENTS: list[Event] = [RunStarted(spec={}), PhaseStarted(phase="search")]


def make_run(runs: Path, name: str, *, over: bool = True) -> RunFolder:
    folder = RunFolder(runs / name)
    folder.create()
    for event in EVENTS:
        folder.append_event(event)
    if over:
        folder.append_terminal(Cancelled())
    (folder.path / "merged").mkdir()
    (folder.path / "merged" / "model.safetensors").write_bytes(b"w" * 500)
    (folder.path / ".summary.json").write_text("{}", encoding="utf-8")
    return folder


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "bucket", tmp_path / "runs"


def test_a_finished_run_survives_the_loss_of_the_disk(places: tuple[Path, Path], tmp_path: Path) -> None:
    storage, runs = places
    run = make_run(runs, "one")
    assert RunStorage(storage, runs).save_finished() == ["one"]
    after = RunStorage(storage, tmp_path / "new disk")
    assert after.restore() == ["one"]
    kept = files_below(run.path)
    del kept[".summary.json"]
    assert files_below(tmp_path / "new disk" / "one") == kept
    assert read_view(RunFolder(tmp_path / "new disk" / "one")).status == "cancelled"
    assert after.restore() == [] and after.save_finished() == [], "nothing has changed"


def test_a_run_at_work_is_not_copied(places: tuple[Path, Path]) -> None:
    storage, runs = places
    run = make_run(runs, "one", over=False)
    saver = RunStorage(storage, runs)
    assert saver.save_finished() == []
    run.append_terminal(Cancelled())
    assert saver.save_finished() == ["one"]


def test_only_what_changed_is_copied_again(places: tuple[Path, Path]) -> None:
    storage, runs = places
    run, saver = make_run(runs, "one"), RunStorage(storage, runs)
    saver.save_finished()
    copy = storage / "runs" / "one"
    (copy / "events.jsonl").write_text("the old copy", encoding="utf-8")
    (run.path / "report.md").write_text("a report", encoding="utf-8")
    (run.path / "merged" / "model.safetensors").unlink()
    assert saver.save_finished() == ["one"]
    assert (copy / "report.md").read_text(encoding="utf-8") == "a report"
    assert (copy / "events.jsonl").read_text(encoding="utf-8") == "the old copy"
    assert not (copy / "merged" / "model.safetensors").exists()


def test_an_incomplete_or_damaged_copy_is_not_restored(places: tuple[Path, Path], tmp_path: Path) -> None:
    storage, runs = places
    for name in ("whole", "cut", "unfinished", "odd", "outside"):
        make_run(runs, name)
    RunStorage(storage, runs).save_finished()
    saved = storage / "runs"
    (saved / "cut" / "events.jsonl").write_text("{", encoding="utf-8")
    (saved / "unfinished" / MANIFEST).unlink()
    (saved / "odd" / MANIFEST).write_text("[1]", encoding="utf-8")
    (saved / "outside" / MANIFEST).write_text(json.dumps({"../../x": [1, 1]}), encoding="utf-8")
    assert RunStorage(storage, tmp_path / "new").restore() == ["whole"]
    assert sorted(path.name for path in (tmp_path / "new").glob("[!.]*")) == ["whole"]


def test_weights_are_restored_as_links_and_kept_so(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_storage, "LINKED_BYTES", 400)
    storage, runs = places
    make_run(runs, "one")
    RunStorage(storage, runs).save_finished()
    after = RunStorage(storage, tmp_path / "new")
    after.restore()
    weights = tmp_path / "new" / "one" / "merged" / "model.safetensors"
    assert weights.is_symlink() and weights.read_bytes() == b"w" * 500
    (tmp_path / "new" / "one" / "report.md").write_text("a report", encoding="utf-8")
    assert after.save_finished() == ["one"]
    assert (storage / "runs" / "one" / "merged" / "model.safetensors").read_bytes() == b"w" * 500


def test_a_deleted_run_does_not_come_back(places: tuple[Path, Path], tmp_path: Path) -> None:
    storage, runs = places
    make_run(runs, "one")
    saver = RunStorage(storage, runs)
    saver.save_finished()
    saver.forget("one")
    saver.forget("never saved")
    assert RunStorage(storage, tmp_path / "new").restore() == []
    assert not (storage / "runs" / "one").exists()


def test_a_storage_that_cannot_be_written_is_logged(
    places: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    storage, runs = places
    make_run(runs, "one")
    storage.write_text("a file in the place of the folder", encoding="utf-8")
    assert RunStorage(storage, runs).save_finished() == []
    assert "one" in caplog.text
