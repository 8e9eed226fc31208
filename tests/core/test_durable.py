"""Whole files are replaced or left, logs grow by whole lines, and errors of the disk are explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.durable import append_line, write_atomic
from core.errors import RunError
from tests.core.conftest import FillDisk
from tests.raising import raises


def test_atomic_write_on_a_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_disk: FillDisk
) -> None:
    target = tmp_path / "result.json"
    write_atomic(target, "old")
    fill_disk(monkeypatch)
    with raises(RunError, "disk-full"):
        write_atomic(target, "a much longer new text")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_place_that_cannot_be_written_is_an_explained_error(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with raises(RunError, "not-writable"):
        write_atomic(blocker / "inside", "text")


def test_a_log_of_one_incomplete_line_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("half")
    append_line(tmp_path / "log", "whole")
    assert (tmp_path / "log").read_text() == "whole\n"
