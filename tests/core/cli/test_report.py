"""`report` on the command line: where it writes, and what it says of a folder that is no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.cli.main import main
from tests.core.report.runs import save_run


def test_both_files_are_written_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_run(tmp_path / "run")
    page = tmp_path / "page.html"
    assert main(["report", str(folder.path), "--out", str(page)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(page), str(folder.path / "report.md")]
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_a_folder_without_a_run_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "events.jsonl" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
