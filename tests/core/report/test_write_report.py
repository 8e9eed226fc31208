"""`write_report` on a real run of tiny models: complete files with reproducible bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import RunError
from core.jobs.worker import run_worker
from core.report.build_report import build_report
from core.report.run_record import read_run
from core.report.write_report import write_report
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.core.report.runs import save_run, section_keys
from tests.tiny_runs import Files, spec_of


def test_a_real_run_has_its_report(tiny_llama: Path, tiny_expert: Path, settings: Settings, tmp_path: Path) -> None:
    files = Files(tmp_path)
    evaluation = {"prompts": files.prompts, "benign": files.benign, "reply_tokens": 8, "limit": 2}
    spec = spec_of(tiny_llama, tiny_expert, files, evaluation=evaluation, search={"steps": 2, "seed": 3})
    folder = RunFolder(tmp_path / "run")
    assert run_worker(spec, settings, folder).kind == "finished"
    written = write_report(folder)
    text = written.markdown.read_text()
    assert (written.html, written.markdown) == (folder.path / "report.html", folder.path / "report.md")
    assert "merge_method: ties" in text
    assert {"pairwise", "merges"} <= set(section_keys(build_report(read_run(folder))))
    assert read_run(folder).missing == ()
    assert str(folder.path) not in text


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    first = write_report(folder)
    before = [path.read_bytes() for path in (first.html, first.markdown, *first.charts)]
    assert first == write_report(folder)
    assert before == [path.read_bytes() for path in (first.html, first.markdown, *first.charts)]


def test_charts_are_beside_the_markdown_file(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    written = write_report(folder, tmp_path / "out" / "a.html", tmp_path / "out" / "b.md")
    assert [path.relative_to(tmp_path).as_posix() for path in written.charts] == [
        f"out/b_files/{name}.svg" for name in ("plane", "categories", "losses")
    ]
    assert not (folder.path / "report.html").exists()


def test_one_file_cannot_be_both(tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        write_report(save_run(tmp_path / "run"), tmp_path / "same", tmp_path / "same")
    assert error.value.code == "same-file"
